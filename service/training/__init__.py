"""How the demo model vista was made: scenes, drawing, captions, training, evaluation.

Run a command as ``PYTHONPATH=service python -m training.<command>``; README.md lists them.
"""
