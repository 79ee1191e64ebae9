"""`python -m dsollama` is `dsollama`."""

from dsollama.cli.app import main

if __name__ == "__main__":
    main()
