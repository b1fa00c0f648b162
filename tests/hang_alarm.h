/* hang_alarm.h - what hangs shall fail: a program of tests that takes too long is ended. */
#ifndef INFERD_TESTS_HANG_ALARM_H
#define INFERD_TESTS_HANG_ALARM_H

#include <unistd.h>

/* Of the whole program; a sanitizer's takes longer. */
static inline void hang_alarm(unsigned int seconds)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    seconds *= 6;
#endif
    alarm(seconds);
}

#endif
