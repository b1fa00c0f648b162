/* checkpoint_edit.h - copies of the checkpoints of tests/golden/quant, changed, and what loading
 * says of them. Include after cmocka.h. */
#ifndef INFERD_TESTS_ENGINE_MODEL_CHECKPOINT_EDIT_H
#define INFERD_TESTS_ENGINE_MODEL_CHECKPOINT_EDIT_H

#include "tests/engine/model/model_helper.h"

/* The copy goes into a directory of its own, for remove_dir. */
static inline void edit_copy(char dir[64], const char *name)
{
    char command[256];
    strcpy(dir, "/tmp/inferd-edit-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(command, sizeof command, "cp tests/golden/quant/%s/* %s", name, dir);
    assert_int_equal(system(command), 0);
}

static inline FILE *edit_open(const char *dir, uint64_t *header_len)
{
    char path[128];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fread(header_len, 1, sizeof *header_len, f), sizeof *header_len);
    return f;
}

static inline json_t *edit_read_header(const char *dir)
{
    uint64_t len;
    FILE *f = edit_open(dir, &len);
    char *text = malloc(len);
    assert_int_equal(fread(text, 1, len, f), len);
    json_t *header = json_loadb(text, len, 0, NULL);
    assert_non_null(header);
    free(text);
    fclose(f);
    return header;
}

/* The tensors stay where they are, behind it. */
static inline void edit_write_header(const char *dir, const json_t *header)
{
    enum { MOST = 1 << 20 };
    uint64_t len;
    char *text = json_dumps(header, JSON_COMPACT), *data = malloc(MOST);
    FILE *f = edit_open(dir, &len);
    fseek(f, (long)len, SEEK_CUR);
    const size_t size = fread(data, 1, MOST, f);
    assert_true(size < MOST);
    len = strlen(text);
    rewind(f);
    assert_int_equal(fwrite(&len, 1, sizeof len, f), sizeof len);
    assert_int_equal(fwrite(text, 1, len, f), len);
    assert_int_equal(fwrite(data, 1, size, f), size);
    assert_int_equal(ftruncate(fileno(f), ftell(f)), 0);
    free(data);
    free(text);
    fclose(f);
}

/* Reads or writes all of the tensor's bytes, which are so many. */
static inline void edit_tensor(const char *dir, const char *name, void *bytes, size_t size,
                               bool write)
{
    uint64_t len;
    json_t *header = edit_read_header(dir);
    json_t *offsets = json_object_get(json_object_get(header, name), "data_offsets");
    const json_int_t begin = json_integer_value(json_array_get(offsets, 0));
    if (json_integer_value(json_array_get(offsets, 1)) - begin != (json_int_t)size)
        fail_msg("%s does not have %zu bytes", name, size);
    FILE *f = edit_open(dir, &len);
    fseek(f, (long)(sizeof len + len) + (long)begin, SEEK_SET);
    assert_int_equal(write ? fwrite(bytes, 1, size, f) : fread(bytes, 1, size, f), size);
    fclose(f);
    json_decref(header);
}

/* What loading says of the copy. */
static inline void expect_load_refused(const char *dir, const char *message)
{
    struct status st;
    struct model *m;
    struct weights *w;
    struct comm *comm;
    struct device *device;
    struct model_options options = { .path = dir, .load_format = "auto", .dtype = "float32" };
    struct device_options device_options = { .num_threads = 1, .isa = "auto" };
    if (!model_open(&options, &m, &st) || !backend_cpu.open(&device, &device_options, &st))
        rig_fail(dir, &st);
    comm = comm_self_open();
    assert_false(weights_load(m, device, comm, NULL, NULL, &w, &st));
    if (!strstr(st.message, message))
        fail_msg("%s", st.message);
    comm->close(comm);
    backend_cpu.close(device);
    model_close(m);
}

#endif
