# shellcheck shell=bash
# A run in named and timed steps.

STEP=0
BEGAN=${EPOCHREALTIME/./}

step() { # TITLE COMMAND...
  local title=$1 began=${EPOCHREALTIME/./}; shift
  STEP=$((STEP + 1))
  printf '\n%2d. %s\n' "$STEP" "$title"
  "$@"
  printf '    %s\n' "[$(since "$began") s]"
}

steps_total() { printf '\n    Total: %s s\n' "$(since "$BEGAN")"; }

# since MICROSECONDS: the seconds from then to now, with one decimal.
since() {
  local tenths=$(((${EPOCHREALTIME/./} - $1) / 100000))
  echo "$((tenths / 10)).$((tenths % 10))"
}

indented() { sed 's/^/    /'; }

# printed COMMAND...: shows the command as a person would type it, then what it says.
printed() {
  local shown="$*"
  printf '    $ %s\n' "${shown//"$CHECKOUT/"/}"
  "$@" 2>&1 | indented
}
