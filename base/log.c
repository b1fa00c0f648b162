/* log.c - a line is formatted on the stack and leaves in one write(2). */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static enum log_level lowest_level = LOG_LEVEL_INFO;
static bool for_journal;

void log_init(enum log_level lowest, bool journal)
{
    lowest_level = lowest;
    for_journal = journal;
}

bool log_enabled(enum log_level level)
{
    return level >= lowest_level;
}

static int write_prefix(char *line, size_t size, enum log_level level)
{
    static const char *const names[] = { "DEBUG", "INFO", "WARNING", "ERROR" };
    static const int priorities[] = { 7, 6, 4, 3 };
    if (for_journal)
        return snprintf(line, size, "<%d>", priorities[level]);
    struct timespec now;
    struct tm tm;
    char date[32];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm);
    return snprintf(line, size, "%s.%03ldZ %s ", date, now.tv_nsec / 1000000, names[level]);
}

void log_line(enum log_level level, const char *format, ...)
{
    if (level < lowest_level || level >= LOG_LEVEL_OFF)
        return;
    char line[2048];
    int start = write_prefix(line, sizeof line, level);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line + start, sizeof line - (size_t)start - 1, format, args);
    va_end(args);
    size_t len = strlen(line);
    (void)n;
    /* A message may quote a client: a control character must not forge a second line. */
    for (size_t i = (size_t)start; i < len; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = ' ';
    line[len++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, len);
    (void)written; /* a log that cannot be written has nowhere to say so */
}
