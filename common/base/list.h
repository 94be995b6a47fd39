/* SPDX-License-Identifier: Apache-2.0 */
/* Intrusive doubly linked list: a struct embeds a list_node; the head is a node too. */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list_node {
    struct list_node *prev, *next;
};

#define LIST_ENTRY(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))
#define LIST_EACH(it, head) for (struct list_node *it = (head)->next; it != (head); it = it->next)
/* Allows removing `it` in the body. */
#define LIST_EACH_SAFE(it, head)                                                   \
    for (struct list_node *it = (head)->next, *it##_next = it->next; it != (head); \
         it = it##_next, it##_next = it->next)

static inline void list_init(struct list_node *head)
{
    head->prev = head->next = head;
}
static inline bool list_empty(const struct list_node *head)
{
    return head->next == head;
}
static inline bool list_linked(const struct list_node *n)
{
    return n->next != NULL;
}

static inline void list_insert_before(struct list_node *at, struct list_node *n)
{
    n->prev = at->prev;
    n->next = at;
    at->prev->next = n;
    at->prev = n;
}

static inline void list_push_back(struct list_node *head, struct list_node *n)
{
    list_insert_before(head, n);
}
static inline void list_push_front(struct list_node *head, struct list_node *n)
{
    list_insert_before(head->next, n);
}

/* Takes n out of its list; does nothing when it is in none (zeroed). */
static inline void list_remove(struct list_node *n)
{
    if (n->next == NULL) return;
    n->prev->next = n->next;
    n->next->prev = n->prev;
    n->prev = n->next = NULL;
}

static inline struct list_node *list_pop_front(struct list_node *head)
{
    struct list_node *n = head->next;
    if (n == head) return NULL;
    list_remove(n);
    return n;
}

/* All of `from` goes in front of what is in the list. */
static inline void list_splice_front(struct list_node *head, struct list_node *from)
{
    if (list_empty(from)) return;
    from->prev->next = head->next;
    head->next->prev = from->prev;
    from->next->prev = head;
    head->next = from->next;
    list_init(from);
}

#endif
