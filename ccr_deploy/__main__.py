"""``python -m ccr_deploy`` is the command ``ccr-deploy``."""

from ccr_deploy.cli import main

if __name__ == "__main__":
    main()
