#include "host.h"

#include <poll.h>
#include <sys/time.h>
#include <unistd.h>

static const int64_t PATIENCE_NS = 5000000000;

static bool acknowledges;
static int64_t owed; /* results that are not acknowledged yet */

void host_acknowledges(bool it_does) {
    acknowledges = it_does;
}

void host_told(void) {
    if (acknowledges) owed++;
}

void host_listen(int64_t duration_ns) {
    int64_t until = clock_ns() + duration_ns;
    for (;;) {
        char came[4096];
        int64_t left_ns = until - clock_ns();
        struct pollfd input = {.fd = 0, .events = POLLIN};
        int ready = poll(&input, 1, left_ns <= 0 ? 0 : left_ns > 1000000000 ? 1000 : (int)((left_ns + 999999) / 1000000));
        ssize_t count = ready > 0 && !(input.revents & POLLNVAL) ? read(0, came, sizeof came) : -1;
        if (ready > 0 && ((input.revents & POLLNVAL) || count == 0)) die("the host is gone");
        if (count > 0) owed = owed > count ? owed - count : 0;
        if (ready <= 0 && clock_ns() >= until) return;
    }
}

bool host_has_everything(void) {
    host_listen(0);
    return owed == 0;
}

void host_wait(void) {
    int64_t until = clock_ns() + PATIENCE_NS;
    while (owed > 0 && clock_ns() < until) {
        struct pollfd input = {.fd = 0, .events = POLLIN};
        poll(&input, 1, (int)((until - clock_ns()) / 1000000) + 1);
        host_listen(0);
    }
    owed = 0;
}

void set_alarm(double seconds) {
    struct itimerval timer = {{0, 0}, {(time_t)seconds, (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)}};
    if (seconds > 0 && timer.it_value.tv_sec == 0 && timer.it_value.tv_usec == 0) timer.it_value.tv_usec = 1;
    setitimer(ITIMER_REAL, &timer, NULL);
}
