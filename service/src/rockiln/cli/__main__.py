"""``python -m rockiln.cli``: the command where no console script is installed."""

from rockiln.cli.main import main

main()
