"""``python -m rockiln`` is ``rockiln``."""

from rockiln.cli.main import main

main()
