/* ONNX models: imported, run, saved as a model of our own and as ONNX, and opened again. Mutations mostly keep to the wire
 * format: they change one field and mend the lengths of those around it. */
#include "fuzz.h"

#include "core/memory.h"
#include "core/protobuf_read.h"

#include <string.h>

void fuzz_start(void)
{
    static const unsigned char bytes[64] = {1, 2, 3};
    (void)fuzz_file("weights.bin", bytes, sizeof bytes); /* external data may lie there */
}

static void open_again(const char *path, const char *text)
{
    ek_net *net;
    if (!fuzz_built(ek_net_open_sick(fuzz_context(), path, &net))) {
        fuzz_require(false, "what is saved opens");
        return;
    }
    if (text) fuzz_require(!strcmp(text, ek_net_text(net)), "what is saved is the same net");
    ek_net_destroy(net);
}

void fuzz_one(const unsigned char *data, size_t size)
{
    const char *path = fuzz_file("input.onnx", data, size);
    ek_net *net;
    if (!fuzz_built(ek_net_open_sick(fuzz_context(), path, &net))) return;
    fuzz_use_net(net);
    const char *own = fuzz_path("saved.safetensors"), *exchanged = fuzz_path("saved.onnx");
    if (fuzz_built(ek_net_save(net, own))) open_again(own, ek_net_text(net));
    if (fuzz_built(ek_net_save_onnx(net, exchanged))) open_again(exchanged, NULL);
    ek_net_destroy(net);
}

/* --- mutations */

enum { ROOM = 1 << 15, FIELDS = 256, DEEPEST = 6, VARINT = 10 };

static uint64_t state;

static size_t draw(size_t limit)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(state >> 33) % limit;
}

static size_t put_varint(unsigned char *to, uint64_t value)
{
    size_t n = 0;
    do {
        to[n++] = (unsigned char)((value & 127) | (value > 127 ? 128 : 0));
        value >>= 7;
    } while (value);
    return n;
}

typedef struct place {
    ek_wire_field field;
    const unsigned char *start, *end;
} place;

/* The fields of a message, as many as there is room for; 0: it is none. */
static int list(const unsigned char *data, size_t size, place places[FIELDS])
{
    ek_wire wire = ek_wire_begin(data, size);
    bool more;
    for (int count = 0; count < FIELDS; count++) {
        places[count].start = wire.at;
        if (ek_wire_next(&wire, &places[count].field, &more) != EK_OK) return 0;
        if (!more) return count;
        places[count].end = wire.at;
    }
    return FIELDS;
}

/* out: room for ROOM; 0: it cannot be done. */
static size_t mutate_message(const unsigned char *data, size_t size, unsigned char *out, int depth);

/* The field with another content. */
static size_t mutate_field(const place *p, unsigned char *out, int depth)
{
    static const uint64_t numbers[] = {0, 1, 2, 3, 7, 8, 64, 255, 1 << 16, 1u << 31, (uint64_t)1 << 40, (uint64_t)-1};
    static unsigned char inner[DEEPEST + 1][ROOM];
    size_t used = put_varint(out, (uint64_t)p->field.number << 3 | (uint64_t)p->field.type);
    if (p->field.type == EK_WIRE_VARINT) {
        uint64_t number = draw(2) ? numbers[draw(sizeof numbers / sizeof *numbers)] : p->field.bits + draw(5) - 2;
        return used + put_varint(out + used, number);
    }
    size_t length = p->field.size;
    if (length > ROOM / 2) return 0;
    if (p->field.type != EK_WIRE_BYTES) {
        memcpy(out + used, p->field.data, length);
        out[used + draw(length)] ^= (unsigned char)(1 << draw(8));
        return used + length;
    }
    size_t made = depth < DEEPEST && draw(8) ? mutate_message(p->field.data, length, inner[depth], depth + 1) : 0;
    if (!made) {
        if (length) memcpy(inner[depth], p->field.data, length);
        made = LLVMFuzzerMutate(inner[depth], length, length + 64);
    }
    if (made > ROOM - 2 * VARINT) return 0;
    used += put_varint(out + used, made);
    memcpy(out + used, inner[depth], made);
    return used + made;
}

static size_t mutate_message(const unsigned char *data, size_t size, unsigned char *out, int depth)
{
    static place all[DEEPEST + 1][FIELDS];
    static unsigned char changed[DEEPEST + 1][ROOM];
    place *places = all[depth];
    int count = size <= ROOM / 2 ? list(data, size, places) : 0;
    if (!count) return 0;
    const place *p = &places[draw((size_t)count)], *other = &places[draw((size_t)count)];
    const unsigned char *middle = changed[depth];
    size_t before = (size_t)(p->start - data), after = size - (size_t)(p->end - data), length = 0;
    switch (draw(12)) {
    case 0: break; /* gone */
    case 1:        /* twice, or another in its place */
    case 2:
        length = (size_t)(other->end - other->start);
        middle = other->start;
        if (draw(2)) before += (size_t)(p->end - p->start);
        break;
    default: length = mutate_field(p, changed[depth], depth);
    }
    if (before + length + after > ROOM) return 0;
    memcpy(out, data, before);
    memcpy(out + before, middle, length);
    memcpy(out + before + length, data + size - after, after);
    return before + length + after;
}

static size_t mutate(unsigned char *data, size_t size, size_t room, unsigned seed)
{
    static unsigned char made[ROOM];
    state = seed;
    for (size_t i = draw(8) ? 1 + draw(3) : 0; i > 0; i--) {
        size_t length = mutate_message(data, size, made, 0);
        if (!length || length > room) break;
        memcpy(data, made, length);
        size = length;
        if (i == 1) return size;
    }
    return LLVMFuzzerMutate(data, size, room);
}

const fuzz_mutator fuzz_mutate = mutate;
