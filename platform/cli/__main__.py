import sys

try:
    from cli.main import main
except KeyboardInterrupt:  # a person who is quicker than the imports
    sys.exit(130)

if __name__ == "__main__":
    main()
