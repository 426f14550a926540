"""The process of a build, ``python -m ccr_deploy.backends.tensorrt DESCRIPTOR``: see `builder.build`."""

from ccr_deploy.backends.tensorrt.build_process import serve
from ccr_deploy.core.child_process import Owner

serve(Owner())
