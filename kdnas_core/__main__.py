"""`python -m kdnas_core`: the command line."""

from kdnas_core.cli.search import main

if __name__ == "__main__":
    main()
