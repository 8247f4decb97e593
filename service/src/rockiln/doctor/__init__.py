"""Measurement → finding → cause → next step. No torch.

``gpu_facts``, ``inside``, ``environment_rules`` and ``alignment`` import nothing of rockiln: the
Ansible collection links them as module_utils, so that host, worker and doctor decide alike.
"""
