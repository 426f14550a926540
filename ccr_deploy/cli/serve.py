"""``ccr-deploy serve``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import (
    bundle_argument,
    echo_line,
    engines_option,
    opened,
    output_options,
    target_option,
)
from ccr_deploy.core.records import to_builtins

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.serving.server import Event

_PORT = click.IntRange(0, 65535)


@click.command()
@bundle_argument
@target_option
@engines_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--http-port", type=_PORT, default=8080, show_default=True, help="HTTP; 0: a free one.")
@click.option("--grpc-port", type=_PORT, default=9000, show_default=True, help="gRPC; 0: a free one.")
@click.option(
    "--max-batch",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Most images in one request, and in one run of an engine.  [default: what the engines were "
    "built for, 8 where they take any]",
)
@click.option(
    "--max-waiting",
    type=click.IntRange(1),
    metavar="N",
    help="Most images that wait for an engine; requests beyond are refused.  [default: 8 times --max-batch]",
)
@click.option(
    "--allow-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="Answer requests to this Host too; may be given several times. Without it, a server on loopback "
    "answers loopback's names alone, a server elsewhere any name; with it, these and loopback's.",
)
@output_options
def serve(
    bundle: Path,
    target: str | None,
    engines: Path | None,
    host: str,
    http_port: int,
    grpc_port: int,
    max_batch: int | None,
    max_waiting: int | None,
    allowed_hosts: tuple[str, ...],
    as_json: bool,
) -> None:
    """Serve a bundle's engines by the Open Inference Protocol V2, over HTTP and gRPC.

    Two models: `encoder`, images to codes, and `classifier`, payloads or codes to labels. The server is
    ready once both engines are warmed up. It has no authentication: listen on other addresses than
    127.0.0.1 behind something that has. Ctrl-C or SIGTERM ends it after the requests in flight.

    \b
    Example:
      ccr-deploy serve bundle --target cpu
    """
    from ccr_deploy.serving import require_kserve

    require_kserve()

    import asyncio

    from ccr_deploy.engines.factory import EngineFactory
    from ccr_deploy.serving.limits import Limits
    from ccr_deploy.serving.server import LocalServer

    factory = EngineFactory.of_last_build(*opened(bundle, target, engines, as_json=as_json))
    limits = Limits.of(factory.target, max_batch, max_waiting)
    server = LocalServer(factory, limits, host, http_port, grpc_port, allowed_hosts=allowed_hosts)
    asyncio.run(server.run(tell_json if as_json else tell))


def tell(event: Event) -> None:
    """One line for people."""
    echo_line(str(event))


def tell_json(event: Event) -> None:
    """One line of JSON."""
    click.echo(json.dumps({"event": type(event).__name__.lower(), **to_builtins(event)}))
