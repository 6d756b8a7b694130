"""`python -m pacs_node.cli`: the same as the console script."""

from pacs_node.cli import main

main()
