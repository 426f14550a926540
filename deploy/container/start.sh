#!/bin/sh
# What a container does.
#   start.sh build       builds the engines that the store lacks: the init step
#   start.sh serve …     the same, then serves; further options go to ccr-deploy serve
#   start.sh healthy     asks the server whether it is ready
# $CCR_DEPLOY_TARGET is the target; without it the one that fits the machine is taken.
set -eu
what=${1:-serve}
[ "$#" -eq 0 ] || shift
case $what in
  build)
    exec ccr-deploy build-engine ${CCR_DEPLOY_TARGET:+--target "$CCR_DEPLOY_TARGET"} "$@"
    ;;
  serve)
    ccr-deploy build-engine ${CCR_DEPLOY_TARGET:+--target "$CCR_DEPLOY_TARGET"}
    exec ccr-deploy serve ${CCR_DEPLOY_TARGET:+--target "$CCR_DEPLOY_TARGET"} --host 0.0.0.0 --http-port 8080 --grpc-port 9000 "$@"
    ;;
  healthy)
    exec python3 -c 'import urllib.request as r; r.urlopen("http://127.0.0.1:8080/v2/health/ready", timeout=2)'
    ;;
  *)
    echo "start.sh: $what: not one of build, serve, healthy" >&2
    exit 2
    ;;
esac
