#!/bin/sh
# The entry point of the images.
#   start.sh build …     builds the engines that are missing in the store, and exits; passes further options
#                        to ccr-deploy build-engine
#   start.sh serve …     builds them, then serves; passes further options to ccr-deploy serve
#   start.sh healthy     checks that the server is ready
# $CCR_DEPLOY_TARGET: the target. Default: the target that fits this machine.
# $CCR_DEPLOY_PRECISION: fp32, fp16, bf16, int8 or auto. Default: the target's precision.
# $CCR_DEPLOY_GOLDEN: a golden file to verify the engines with after building. Default: no verification.
# $CCR_DEPLOY_REQUIRE_VERIFIED: 1 serves only engines that have passed a verification.
set -eu

# As a container's first process, a shell ignores SIGTERM unless it has a handler.
stopped='' running=''
trap 'stopped=1; [ -n "$running" ] || exit 143; stop_command' TERM INT

# End the command that `run` started last, if any; twice, because a child that was just forked may lose a signal.
stop_command() {
  kill -TERM "${!:-}" 2>/dev/null || return 0
  sleep 0.2
  kill -TERM "$!" 2>/dev/null || :
}

build() {
  case "${CCR_DEPLOY_PRECISION:+--$CCR_DEPLOY_PRECISION} $* " in *'--auto '*) ;; *) set -- --no-timing "$@" ;; esac
  run ccr-deploy build-engine ${CCR_DEPLOY_TARGET:+--target "$CCR_DEPLOY_TARGET"} ${CCR_DEPLOY_PRECISION:+"--$CCR_DEPLOY_PRECISION"} "$@"
  if [ -n "${CCR_DEPLOY_GOLDEN:-}" ]; then
    run ccr-deploy verify ${CCR_DEPLOY_TARGET:+--target "$CCR_DEPLOY_TARGET"} --golden "$CCR_DEPLOY_GOLDEN"
  fi
}

# Run a command that SIGTERM ends too; exit if it fails.
run() {
  running=1
  "$@" &
  [ -z "$stopped" ] || stop_command # the signal came before the command was started
  status=0
  wait "$!" || status=$?
  while kill -0 "$!" 2>/dev/null; do # the signal ended the wait, not the command
    status=0
    wait "$!" || status=$?
  done
  running=''
  [ -z "$stopped" ] || exit 143
  [ "$status" -ne 137 ] || report_memory "$1 $2"
  [ "$status" -eq 0 ] || exit "$status"
}

report_memory() {
  limit=$(cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null) || :
  case $limit in
    '' | *[!0-9]* | ????????????????*) limit='as much memory as the machine has' ;; # no limit, in either version of control groups
    *) limit="$((limit / 1048576)) MiB" ;;
  esac
  echo "start.sh: $1 was killed, probably because memory ran out: the container may use $limit: give it more memory" >&2
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
case ${CCR_DEPLOY_REQUIRE_VERIFIED:-0} in
  0) require_verified='' ;;
  1) require_verified=--require-verified ;;
  *)
    echo "start.sh: CCR_DEPLOY_REQUIRE_VERIFIED=$CCR_DEPLOY_REQUIRE_VERIFIED: not 0 or 1" >&2
    exit 2
    ;;
esac
case $what in
  build)
    build "$@"
    ;;
  serve)
    build
    exec ccr-deploy serve ${CCR_DEPLOY_TARGET:+--target "$CCR_DEPLOY_TARGET"} ${require_verified:+"$require_verified"} --host 0.0.0.0 --http-port 8080 --grpc-port 9000 "$@"
    ;;
  healthy)
    exec python3 -c 'import urllib.request as r; r.urlopen("http://127.0.0.1:8080/v2/health/ready", timeout=2)'
    ;;
  *)
    echo "start.sh: $what: not one of build, serve, healthy" >&2
    exit 2
    ;;
esac
