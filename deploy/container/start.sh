#!/bin/sh
# What a container does.
#   start.sh build       builds the engines that the store lacks: the init step
#   start.sh serve …     the same, then serves; further options go to ccr-deploy serve
#   start.sh healthy     asks the server whether it is ready
# $CCR_DEPLOY_TARGET is the target; without it the one that fits the machine is taken.
# $CCR_DEPLOY_PRECISION is fp32, fp16, bf16, int8 or auto; without it the target decides.
set -eu

# A shell that is a container's first process ignores SIGTERM unless it handles it.
stopped='' builder=''
trap 'stopped=1; [ -z "$builder" ] || kill -TERM "$builder" 2>/dev/null || :' TERM INT

build() {
  case "${CCR_DEPLOY_PRECISION:+--$CCR_DEPLOY_PRECISION} $* " in *'--auto '*) ;; *) set -- --no-timing "$@" ;; esac
  ccr-deploy build-engine ${CCR_DEPLOY_TARGET:+--target "$CCR_DEPLOY_TARGET"} ${CCR_DEPLOY_PRECISION:+"--$CCR_DEPLOY_PRECISION"} "$@" &
  builder=$!
  status=0
  wait "$builder" || status=$?
  while kill -0 "$builder" 2>/dev/null; do # it was the signal that ended the wait
    status=0
    wait "$builder" || status=$?
  done
  [ -z "$stopped" ] || exit 143
  [ "$status" -ne 137 ] || tell_of_memory
  [ "$status" -eq 0 ] || exit "$status"
}

tell_of_memory() {
  limit=$(cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null) || :
  case $limit in
    '' | *[!0-9]* | ????????????????*) limit='as much memory as the machine has' ;; # control groups' ways to say it
    *) limit="$((limit / 1048576)) MiB" ;;
  esac
  echo "start.sh: the build was killed, as when memory runs out: the container may use $limit, and needs more" >&2
}

what=${1:-serve}
[ "$#" -eq 0 ] || shift
case ${CCR_DEPLOY_PRECISION:-auto} in
  fp32 | fp16 | bf16 | int8 | auto) ;;
  *)
    echo "start.sh: CCR_DEPLOY_PRECISION=$CCR_DEPLOY_PRECISION: not one of fp32, fp16, bf16, int8, auto" >&2
    exit 2
    ;;
esac
case $what in
  build)
    build "$@"
    ;;
  serve)
    build
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
