# Android's fixed-performance mode, which is switched off again when nobody has renewed it for a while.
#
#     sh fixed_performance.sh on RENEWED SECONDS POLL_S     switch it on until SECONDS after the last renewal; fails where unsupported
#     sh fixed_performance.sh renew RENEWED SECONDS POLL_S  renew it, or switch it on again
#     sh fixed_performance.sh off RENEWED                   switch it off
#
# It is pushed to the device and run there. RENEWED is a file that holds the time of the last renewal, in seconds. A process in a
# session of its own watches it every POLL_S seconds, so that neither a killed host nor a pulled cable leaves the mode on.

set_mode() { cmd power set-fixed-performance-mode-enabled "$1"; }
renew() { date +%s >"$renewed_file.new" && mv -f "$renewed_file.new" "$renewed_file"; }

watch() {
  trap "" HUP INT TERM
  exec >/dev/null  # who started us waits for this: before, we might be killed together with it
  while [ -e "$renewed_file" ]; do
    renewed=$(cat "$renewed_file" 2>/dev/null)
    if [ $(($(date +%s) - ${renewed:-0})) -ge "$seconds" ] && [ -n "$renewed" ]; then
      rm -f "$renewed_file"
      set_mode false
    fi
    sleep "$poll_s"
  done
}

action=$1 renewed_file=$2 seconds=$3 poll_s=$4
case $action in
  on | renew)
    if [ -e "$renewed_file" ]; then renew; exit; fi
    renew || exit 1
    detach=
    command -v setsid >/dev/null 2>&1 && detach=setsid
    : "$($detach sh "$0" watch "$renewed_file" "$seconds" "$poll_s" </dev/null 2>/dev/null &)"
    if ! set_mode true; then rm -f "$renewed_file"; exit 3; fi ;;
  off) rm -f "$renewed_file"; set_mode false ;;
  watch) watch ;;
esac
