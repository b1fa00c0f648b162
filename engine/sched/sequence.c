/* sequence.c - the slab, the lists linked through it, and the stop checks. */
#include "engine/sched/sequence.h"
#include "base/alloc.h"

#include <assert.h>
#include <stdlib.h>

void sequence_slab_init(struct sequence_slab *slab, int32_t capacity)
{
    assert(capacity > 0);
    *slab = (struct sequence_slab){ .capacity = capacity, .free_head = SEQUENCE_NONE };
    slab->slots = xcalloc((size_t)capacity, sizeof *slab->slots);
}

void sequence_slab_free(struct sequence_slab *slab)
{
    free(slab->slots);
    slab->slots = NULL;
}

int32_t sequence_slab_take(struct sequence_slab *slab, struct request *r)
{
    assert(slab->num_used < slab->capacity);
    /* Slots that were never used are not linked, so that a large slab costs no memory at start. */
    int32_t index = slab->free_head;
    if (index != SEQUENCE_NONE)
        slab->free_head = slab->slots[index].next;
    else
        index = slab->num_touched++;
    slab->num_used++;
    slab->slots[index] = (struct sequence){ .status = SEQUENCE_WAITING,
                                            .request = r,
                                            .num_tokens = r->num_prompt_tokens,
                                            .table = -1,
                                            .prev = SEQUENCE_NONE,
                                            .next = SEQUENCE_NONE };
    return index;
}

void sequence_slab_put(struct sequence_slab *slab, int32_t index)
{
    assert(slab->slots[index].status != SEQUENCE_FREE);
    slab->slots[index].status = SEQUENCE_FREE;
    slab->slots[index].request = NULL;
    slab->slots[index].next = slab->free_head;
    slab->free_head = index;
    slab->num_used--;
}

void sequence_list_init(struct sequence_list *list)
{
    *list = (struct sequence_list){ .head = SEQUENCE_NONE, .tail = SEQUENCE_NONE };
}

void sequence_list_push_back(struct sequence_list *list, struct sequence_slab *slab, int32_t index)
{
    slab->slots[index].prev = list->tail;
    slab->slots[index].next = SEQUENCE_NONE;
    if (list->tail == SEQUENCE_NONE)
        list->head = index;
    else
        slab->slots[list->tail].next = index;
    list->tail = index;
    list->count++;
}

void sequence_list_push_front(struct sequence_list *list, struct sequence_slab *slab, int32_t index)
{
    slab->slots[index].prev = SEQUENCE_NONE;
    slab->slots[index].next = list->head;
    if (list->head == SEQUENCE_NONE)
        list->tail = index;
    else
        slab->slots[list->head].prev = index;
    list->head = index;
    list->count++;
}

void sequence_list_remove(struct sequence_list *list, struct sequence_slab *slab, int32_t index)
{
    struct sequence *seq = &slab->slots[index];
    if (seq->prev == SEQUENCE_NONE)
        list->head = seq->next;
    else
        slab->slots[seq->prev].next = seq->next;
    if (seq->next == SEQUENCE_NONE)
        list->tail = seq->prev;
    else
        slab->slots[seq->next].prev = seq->prev;
    seq->prev = seq->next = SEQUENCE_NONE;
    list->count--;
}

static bool contains(const int32_t *ids, int32_t count, int32_t id)
{
    for (int32_t i = 0; i < count; i++)
        if (ids[i] == id)
            return true;
    return false;
}

enum finish_reason sequence_check_stop(const struct sequence *seq, int32_t max_model_len,
                                       int32_t *stop_token_id)
{
    const struct request *r = seq->request;
    const struct sampling_params *params = &r->params;
    int32_t num_output_tokens = sequence_num_output_tokens(seq);
    if (num_output_tokens >= r->max_tokens || seq->num_tokens >= max_model_len)
        return FINISH_LENGTH;
    if (num_output_tokens < params->min_tokens)
        return FINISH_NONE;
    int32_t id = r->token_ids[seq->num_tokens - 1];
    *stop_token_id = -1;
    if (!params->ignore_eos && contains(params->eos_token_ids, params->num_eos_token_ids, id))
        return FINISH_STOP;
    *stop_token_id = id;
    if (contains(params->stop_token_ids, params->num_stop_token_ids, id))
        return FINISH_STOP;
    return FINISH_NONE;
}
