/* The process at the other end of standard input. Each byte from there acknowledges one result. */
#ifndef NATIVE_HOST_H
#define NATIVE_HOST_H

#include "base.h"

/* Whether it sends such bytes; it does not until this is called. */
void host_acknowledges(bool it_does);
/* A result is on its way. */
void host_told(void);
/* Take in what comes within so long, which is waited for; ends the runner if nothing will ever come. */
void host_listen(int64_t duration_ns);
/* Take in what has come: whether every result has arrived. */
bool host_has_everything(void);
/* Wait until it has, or for so long that it may have overlooked a line. */
void host_wait(void);

/* End by SIGALRM if nobody calls this again within so many seconds; 0 for never. */
void set_alarm(double seconds);

#endif
