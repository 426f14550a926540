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
    require_verified_option,
    target_option,
)
from ccr_deploy.core.records import to_builtins

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from ccr_deploy.serving.server import Event


def _port_option(protocol: str, default: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        f"--{protocol.lower()}-port",
        type=click.IntRange(0, 65535),
        metavar="PORT",
        default=default,
        show_default=True,
        help=f"{protocol} port; 0 for any free port.",
    )


@click.command(short_help="Serve the engines of a bundle over HTTP and gRPC.")
@bundle_argument
@target_option
@engines_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@_port_option("HTTP", 8080)
@_port_option("gRPC", 9000)
@click.option(
    "--max-batch",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Maximum number of images in a request and in a run of an engine.  [default: the engines' maximum, "
    "8 if they have none]",
)
@click.option(
    "--max-waiting",
    type=click.IntRange(1),
    metavar="N",
    help="Maximum number of queued images; further requests are rejected.  [default: 8 times --max-batch]",
)
@click.option(
    "--allow-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="Accept requests with this Host header, besides the names of loopback; repeatable.  [default: any "
    "host; on a loopback address, only the names of loopback]",
)
@require_verified_option
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
    require_verified: bool,
    as_json: bool,
) -> None:
    """Serve the engines of a bundle over HTTP and gRPC by the Open Inference Protocol V2.

    The models are `encoder` (images to codes) and `classifier` (payloads or codes to labels). The server
    is ready after both engines are warmed up. It has no authentication: use a proxy with authentication if
    it listens on another address than 127.0.0.1. On Ctrl-C or SIGTERM the server completes the requests in
    progress and stops.

    BUNDLE defaults to $CCR_DEPLOY_BUNDLE, then ./bundle.

    \b
    Example:
      ccr-deploy serve bundle --target cpu --http-port 8080 --grpc-port 9000
    """
    from ccr_deploy.serving import require_kserve

    require_kserve()

    from ccr_deploy.engines.factory import EngineFactory
    from ccr_deploy.serving.limits import Limits
    from ccr_deploy.serving.server import LocalServer, serve_until_stopped

    factory = EngineFactory.of_last_build(*opened(bundle, target, engines, as_json=as_json))
    limits = Limits.of(factory.target, max_batch, max_waiting)
    server = LocalServer(
        factory,
        limits,
        host,
        http_port,
        grpc_port,
        allowed_hosts=allowed_hosts,
        require_verified=require_verified,
    )
    serve_until_stopped(server, tell_json if as_json else tell)


def tell(event: Event) -> None:
    """Print an event as a line of text."""
    echo_line(str(event))


def tell_json(event: Event) -> None:
    """Print an event as a line of JSON."""
    click.echo(json.dumps({"event": type(event).__name__.lower(), **to_builtins(event)}))
