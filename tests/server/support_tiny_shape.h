/* support_tiny_shape.h - a directory with nothing but a small config.json, for --load-format dummy.
 */
#ifndef INFERD_TESTS_SERVER_SUPPORT_TINY_SHAPE_H
#define INFERD_TESTS_SERVER_SUPPORT_TINY_SHAPE_H

/* cmocka group setup and teardown: makes the directory, removes it. */
int tiny_shape_setup(void **state);
int tiny_shape_teardown(void **state);
/* Its path, between the two. */
const char *tiny_shape_path(void);
/* Runs `run` on the command line "inferd WORDS..." (NULL at the end) with standard output going to
 * a file; returns its exit code and, in *output, the text, which the caller frees. */
struct config;
int tiny_shape_run(int (*run)(const struct config *), const char *const *words, char **output);

#endif
