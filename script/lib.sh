# What script/run and script/test share; sourced by both, with $root set to the repository. All of it is safe to repeat.
# shellcheck shell=bash

# shellcheck disable=SC2154 # whoever sources this sets root
venv="$root/.venv"
python="$venv/bin/python"

# Debian keeps servers and policy-rc.d's tools where a user's PATH may not look.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# Only somebody at a terminal can be asked for a password.
if [ -t 0 ]; then sudo=(sudo); else sudo=(sudo -n); fi

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# fail SENTENCE: the last line of a run that cannot go on says what is missing and how to get it.
fail() {
  say "$*"
  exit 1
}

# as_root COMMAND...: run as root, or through sudo; false if neither is to be had.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  else
    command -v sudo >/dev/null && "${sudo[@]}" "$@"
  fi
}

# debian_packages WHY PACKAGE...: install them without letting their services start: a RabbitMQ of the machine's own is
# no business of ours, and it would hold the ports that a later one wants.
debian_packages() {
  local why="$1"
  shift
  command -v apt-get >/dev/null ||
    fail "$why needs $*, and this is not a Debian: install what corresponds to it, then run this again."
  as_root true 2>/dev/null ||
    fail "$why needs $*, and this is neither root nor allowed sudo: as root, run: apt-get install $*"
  say "installing $* with apt-get ($why)"
  # The script runs as root, in a shell of its own, so that the policy goes whatever happens.
  # shellcheck disable=SC2016
  as_root env DEBIAN_FRONTEND=noninteractive sh -euc '
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
      trap "rm -f $policy" EXIT
      trap "exit 130" INT TERM
      printf "#!/bin/sh\nexit 101\n" >"$policy"
      chmod 755 "$policy"
    fi
    apt-get -q update
    apt-get -q install -y --no-install-recommends "$@"
  ' sh "$@" </dev/null >"$root/var/apt.log" 2>&1 ||
    fail "$why needs $*, which apt-get could not install (see var/apt.log): put that right, then run this again."
}

# find_python: print the newest Python there is that pubd runs on. Asks each one, since a name may be an empty shim.
find_python() {
  local name
  for name in python3.13 python3.12 python3.11 python3; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  return 1
}

make_venv() {
  local found
  # Its scripts name their interpreter by its path, so a repository that was moved needs another one.
  if [ "$(cat "$venv/pubd.root" 2>/dev/null)" = "$root" ] && "$python" -m pip --version >/dev/null 2>&1; then
    return
  fi
  found="$(find_python)" ||
    fail "pubd needs Python 3.11 or later: install it (Debian 12 or later: apt-get install python3 python3-venv)."
  # Debian ships venv without ensurepip unless python3-venv is there.
  if ! "$found" -c 'import ensurepip, venv' 2>/dev/null; then
    debian_packages "making .venv" "$("$found" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
  fi
  say "making .venv with $("$found" --version)"
  "$found" -m venv --clear "$venv" || fail "$found could not make .venv: remove the directory and run this again."
  printf '%s\n' "$root" >"$venv/pubd.root"
}

# install_pubd [EXTRA]: install pubd into .venv, editable, unless it has been since setup.cfg or pyproject.toml changed.
install_pubd() {
  local extra="${1:-}" stamp
  stamp="$(cat "$root/setup.cfg" "$root/pyproject.toml" | sha256sum)"
  # Whoever has the dev extra has everything that running needs.
  if [ "$(cat "$venv/pubd-dev.stamp" 2>/dev/null)" = "$stamp" ] ||
    { [ -z "$extra" ] && [ "$(cat "$venv/pubd.stamp" 2>/dev/null)" = "$stamp" ]; }; then
    return
  fi
  say "installing pubd${extra:+ and what its checks need} into .venv"
  # compat: the default kind of editable install hides twisted/plugins from Twisted.
  "$python" -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat \
    --editable "$root${extra:+[$extra]}" </dev/null ||
    fail "pip could not install pubd into .venv (its own words are above): check the network, then run this again."
  printf '%s\n' "$stamp" >"$venv/pubd${extra:+-$extra}.stamp"
}

need_rabbitmq() {
  # where tests/rabbitmq.py takes it from
  [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || debian_packages "a private RabbitMQ" rabbitmq-server
}

# prepare FUNCTION...: call them one after the other, while no other script/run or script/test does.
prepare() {
  mkdir -p "$root/var"
  (
    if command -v flock >/dev/null; then
      flock -n 9 || {
        say "waiting for another script/run or script/test to finish its preparation"
        flock 9
      }
    fi
    local step
    for step in "$@"; do
      "$step" 9>&- || exit 1
    done
  ) 9>"$root/var/prepare.lock" || exit 1
}
