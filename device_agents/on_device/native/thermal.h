/* Android's own word on heat: 0 none … 6 shutdown. */
#ifndef NATIVE_THERMAL_H
#define NATIVE_THERMAL_H

#include <stdbool.h>

/* Ask `dumpsys thermalservice`; false if there is none, or it does not answer within two seconds. */
bool android_thermal_status(const char *root, int *status);

#endif
