"""The server imports KServe's SDK without the parts that it does not use."""

from __future__ import annotations

import subprocess
import sys

import pytest

SDK = "import sys; from ccr_deploy.serving import kserve_sdk as sdk, server; import kserve"


def python(program: str) -> str:
    """Return the output of a program in a separate process."""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_neither_kubernetes_nor_pandas_is_imported() -> None:
    unwanted = (
        "kubernetes",
        "pandas",
        "kserve.api.kserve_client",
        "requests",
        "aiohttp",
        "grpc_tools.protoc",
    )
    assert python(f"{SDK}; print([name for name in {unwanted} if name in sys.modules])") == "[]"


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (
            "kserve.KServeClient()",
            "ImportError: the server imports KServe's SDK without kserve.api.kserve_client",
        ),
        (
            "sdk.InferRequest('encoder', []).as_dataframe()",
            "AttributeError: pandas.concat: the server imports",
        ),
        (
            "kserve.utils.pd.DataFrame([1])",
            "ImportError: the server imports KServe's SDK without pandas",
        ),
    ],
)
def test_using_a_placeholder_raises(use: str, error: str) -> None:
    program = f"{SDK}\ntry: {use}\nexcept Exception as error: print(f'{{type(error).__name__}}: {{error}}')"
    assert python(program).startswith(error)


@pytest.mark.parametrize(
    "program",
    [
        f"{SDK}; import pandas; print(pandas.DataFrame([[7]]).iat[0, 0] == 7)",
        f"{SDK}; from kserve.api.kserve_client import config; print('kubernetes' in sys.modules)",
        f"import pandas; {SDK}; print(kserve.utils.pd is pandas)",
        f"import kserve; {SDK}; print(hasattr(kserve.KServeClient, 'get'))",
    ],
)
def test_real_modules_are_imported_before_and_after(program: str) -> None:
    assert python(program) == "True"
