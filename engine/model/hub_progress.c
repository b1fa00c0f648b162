/* hub_progress.c - drawn in one write each, so that lines of the log do not fall into the middle.
 */
#include "engine/model/hub_progress.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    LINE_SECONDS = 5, /* between two lines of the log */
    DRAW_MS = 200,
    BAR_CELLS = 24,
    NAME_CELLS = 34,
    NARROWEST = 90, /* columns below which bars would wrap */
    MAX_ROWS = 8
};

struct hub_size_shown hub_size_show(double bytes)
{
    static const char *const units[] = { "B", "kB", "MB", "GB", "TB" };
    struct hub_size_shown out;
    size_t unit = 0;
    while (bytes >= 999.5 && unit + 1 < sizeof units / sizeof units[0]) {
        bytes /= 1000;
        unit++;
    }
    snprintf(out.text, sizeof out.text, "%.*f %s", unit == 0 || bytes >= 99.95 ? 0 : 1, bytes,
             units[unit]);
    return out;
}

static bool terminal_is_wide(void)
{
    struct winsize size;
    return isatty(STDERR_FILENO) && ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 &&
           size.ws_col >= NARROWEST && size.ws_row > MAX_ROWS + 2;
}

void hub_progress_begin(struct hub_progress *p, uint64_t total_bytes, uint64_t found_bytes,
                        int32_t num_files, bool bars_allowed)
{
    *p = (struct hub_progress){ .total_bytes = total_bytes,
                                .found_bytes = found_bytes,
                                .num_files = num_files };
    p->bars = bars_allowed && terminal_is_wide();
    p->begun_ns = p->shown_ns = clock_now_ns();
    p->shown_bytes = found_bytes;
    log_info("hub: downloading %d files, %s%s%s%s", num_files,
             hub_size_show((double)total_bytes).text, found_bytes ? ", of which " : "",
             found_bytes ? hub_size_show((double)found_bytes).text : "",
             found_bytes ? " are here from an earlier run" : "");
}

static double percent(uint64_t done, uint64_t total)
{
    return total ? 100.0 * (double)done / (double)total : 100.0;
}

static void draw_bar(struct buf *out, const char *name, uint64_t done, uint64_t total)
{
    size_t len = strlen(name);
    int filled = (int)(percent(done, total) * BAR_CELLS / 100);
    /* The end of a name tells shards apart; the beginning does not. */
    const char *shown = len > NAME_CELLS ? name + (len - NAME_CELLS) : name;
    buf_printf(out, "\r\x1b[K%-*s [", NAME_CELLS, shown);
    for (int i = 0; i < BAR_CELLS; i++)
        buf_append_char(out, i < filled ? '#' : '.');
    buf_printf(out, "] %3.0f %% %9s", percent(done, total), hub_size_show((double)total).text);
}

static void draw(struct hub_progress *p, const struct hub_progress_row *rows, int32_t num_rows,
                 uint64_t done_bytes, double rate)
{
    struct buf out;
    buf_init(&out, 0);
    if (p->num_lines > 0)
        buf_printf(&out, "\x1b[%dA", p->num_lines);
    p->num_lines = 1;
    for (int32_t i = 0; i < num_rows && i < MAX_ROWS; i++) {
        draw_bar(&out, rows[i].path, rows[i].done_bytes, rows[i].size_bytes);
        buf_append_char(&out, '\n');
        p->num_lines++;
    }
    draw_bar(&out, "total", done_bytes, p->total_bytes);
    buf_printf(&out, " %s/s\n\x1b[J", hub_size_show(rate).text);
    ssize_t written = write(STDERR_FILENO, out.data, out.len);
    (void)written;
    buf_free(&out);
}

void hub_progress_tick(struct hub_progress *p, const struct hub_progress_row *rows,
                       int32_t num_rows, uint64_t done_bytes, int32_t files_done)
{
    uint64_t now = clock_now_ns();
    double seconds = clock_seconds_between(p->shown_ns, now);
    if (seconds < (p->bars ? DRAW_MS * 1e-3 : LINE_SECONDS))
        return;
    /* A file that came broken counts from zero again. */
    double rate = done_bytes > p->shown_bytes ? (double)(done_bytes - p->shown_bytes) / seconds : 0;
    if (p->bars)
        draw(p, rows, num_rows, done_bytes, rate);
    else
        log_info("hub: %.0f %%, %s of %s, %s/s, %d of %d files",
                 percent(done_bytes, p->total_bytes), hub_size_show((double)done_bytes).text,
                 hub_size_show((double)p->total_bytes).text, hub_size_show(rate).text, files_done,
                 p->num_files);
    p->shown_ns = now;
    p->shown_bytes = done_bytes;
}

void hub_progress_end(struct hub_progress *p, uint64_t done_bytes, int32_t files_done)
{
    double seconds = clock_seconds_between(p->begun_ns, clock_now_ns());
    double fetched = done_bytes > p->found_bytes ? (double)(done_bytes - p->found_bytes) : 0;
    if (p->bars)
        draw(p, NULL, 0, done_bytes, fetched / (seconds > 1e-3 ? seconds : 1e-3));
    log_info("hub: %d of %d files, %s in %.1f s, %s/s", files_done, p->num_files,
             hub_size_show(fetched).text, seconds,
             hub_size_show(fetched / (seconds > 1e-3 ? seconds : 1e-3)).text);
}
