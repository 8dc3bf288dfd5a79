# Android's mode of fixed performance, switched on for as long as somebody renews a lease.
#
#     sh fixed_performance.sh on LEASE SECONDS POLL_S     switch it on; off by itself SECONDS after the last renewal. Fails where unsupported
#     sh fixed_performance.sh renew LEASE SECONDS POLL_S  the same again, whether it is still on or not
#     sh fixed_performance.sh off LEASE                   switch it off
#
# It is pushed to the device and run there. LEASE is a file that holds the second of the last renewal. A process in a session of its
# own watches it, so that neither a killed host nor a pulled cable leaves the mode on.

set_mode() { cmd power set-fixed-performance-mode-enabled "$1"; }
renew() { date +%s >"$lease.new" && mv -f "$lease.new" "$lease"; }

watch() {
  trap "" HUP INT TERM
  exec >/dev/null  # who started us waits for this: before, we might be killed together with it
  while [ -e "$lease" ]; do
    renewed=$(cat "$lease" 2>/dev/null)
    if [ $(($(date +%s) - ${renewed:-0})) -ge "$seconds" ] && [ -n "$renewed" ]; then
      rm -f "$lease"
      set_mode false
    fi
    sleep "$poll_s"
  done
}

action=$1 lease=$2 seconds=$3 poll_s=$4
case $action in
  on | renew)
    if [ -e "$lease" ]; then renew; exit; fi
    renew || exit 1
    detach=
    command -v setsid >/dev/null 2>&1 && detach=setsid
    : "$($detach sh "$0" watch "$lease" "$seconds" "$poll_s" </dev/null 2>/dev/null &)"
    if ! set_mode true; then rm -f "$lease"; exit 3; fi ;;
  off) rm -f "$lease"; set_mode false ;;
  watch) watch ;;
esac
