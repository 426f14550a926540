"""Run the command ``ccr-deploy`` as ``python -m ccr_deploy``."""

from ccr_deploy.cli import main

if __name__ == "__main__":
    main()
