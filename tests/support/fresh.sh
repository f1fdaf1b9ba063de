#!/usr/bin/env bash
# `make test-fresh SUITE=trixie`: the two commands of the README in a new Debian, by an ordinary user.
#
# Usage: fresh.sh SUITE COMMAND...
#
# Builds a root with debootstrap, clones HEAD into it, and runs each COMMAND in the clone. Prints how long each took and
# its last lines; all output is in output/fresh-SUITE.log. Exits with 1 if a command failed. Needs root.
#
# DEBIAN_MIRROR  where Debian packages come from, if not from where debootstrap takes them by itself
# PIP_CERT       the CA bundle of a proxy on this machine, which is copied
set -euo pipefail

PACKAGES=python3,python3-venv,git,ca-certificates,make
# How pip and uv reach an index from here.
FROM_THIS_MACHINE='^(PIP_(EXTRA_)?INDEX_URL|UV_(DEFAULT_|EXTRA_)?INDEX(_URL)?|(HTTPS?|ALL|NO)_PROXY)='
LAST_LINES=25

main() {
  suite=$1
  shift
  repository=$(cd "$(dirname "$0")/../.." && pwd)
  log=$repository/output/fresh-$suite.log
  [ "$(id -u)" = 0 ] || fail 'needs root, for debootstrap and chroot'
  command -v debootstrap > /dev/null || fail 'needs debootstrap: apt-get install debootstrap'
  mkdir -p "$(dirname "$log")"
  : > "$log"

  root=$(mktemp -d /var/tmp/fresh-XXXXXX)
  running=
  trap 'rm -rf --one-file-system "$root"' EXIT
  trap 'end_command; exit 130' INT TERM
  chmod 755 "$root" # mktemp lets only root in
  build_root
  copy_clone
  status=0
  for command; do
    run "$command" || status=1
  done
  exit "$status"
}

build_root() {
  echo "Building a root of Debian $suite ..."
  # Older releases of debootstrap do not know the newest suites, which are built as sid is.
  script=/usr/share/debootstrap/scripts/$suite
  [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
  debootstrap --variant=minbase --include="$PACKAGES" "$suite" "$root" "${DEBIAN_MIRROR:-}" "$script" >> "$log" 2>&1 ||
    fail 'debootstrap failed'
  cp /etc/resolv.conf /etc/hosts "$root/etc/"
  if [ -n "${PIP_CERT:-}" ]; then
    cp "$PIP_CERT" "$root/etc/ssl/certs/ca-certificates.crt"
  fi
  chroot "$root" useradd --create-home --shell /bin/bash user
}

copy_clone() {
  git -c safe.directory='*' clone --quiet --no-hardlinks "$repository" "$root/home/user/tap-balance"
  chroot "$root" chown -R user: /home/user/tap-balance
}

# In namespaces of its own: what is still mounted or running at the end goes with them.
run() {
  echo "\$ $1" | tee -a "$log"
  begin=$SECONDS
  code=0
  # shellcheck disable=SC2016
  unshare --mount --pid --fork bash -c '
    mount -t proc proc "$1/proc"
    mount -t tmpfs -o mode=1777 tmpfs "$1/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$1/dev/pts"
    mount --bind "$1/dev/pts/ptmx" "$1/dev/ptmx"
    exec chroot --userspec=user:user "$1" "${@:3}" bash -c "cd ~/tap-balance && $2"
  ' bash "$root" "$1" env -i "${environment[@]}" > "$root/output" 2>&1 &
  running=$!
  wait "$running" || code=$?
  running=
  cat "$root/output" >> "$log"
  tail -n "$LAST_LINES" "$root/output"
  echo "=> $1: exit status $code after $((SECONDS - begin)) s" | tee -a "$log"
  return "$code"
}

# The first process of the namespace takes all others with it.
# shellcheck disable=SC2317 # a trap calls it
end_command() {
  [ -z "$running" ] || xargs kill -KILL < "/proc/$running/task/$running/children"
}

fail() {
  echo "test-fresh: $1${log:+ (see $log)}" >&2
  exit 1
}

# In a mount namespace from here on: what debootstrap mounts is gone with this process, however that ends.
[ "${FRESH:-}" ] || [ "$(id -u)" != 0 ] || FRESH=1 exec unshare --mount "$0" "$@"
mapfile -t environment < <(env | grep -iE "$FROM_THIS_MACHINE")
environment+=(HOME=/home/user USER=user PATH=/usr/local/bin:/usr/bin:/bin)
main "$@"
