/* No runtime at all: a model is a JSON file saying how it behaves. For tests of the host, chosen by name only. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "inputs.h"
#include "json.h"
#include "runtime.h"

typedef struct {
    Model model;
    int64_t latency_ns;
    bool crash, hang;
    Tensor *tensors;
    Json *script;
} FakeModel;

static bool is_true(const Json *script, const char *name) {
    const Json *member = json_member(script, name);
    return member != NULL && member->kind == JSON_BOOL && member->boolean;
}

static bool fake_run(Model *model, Reason *reason) {
    const FakeModel *fake = (const FakeModel *)model;
    (void)reason;
    if (fake->crash) kill(getpid(), SIGSEGV);
    while (fake->hang) sleep_ns(1000000000);
    for (int64_t until = clock_ns() + fake->latency_ns; clock_ns() < until;) {
    }
    return true;
}

static bool fake_output(Model *model, size_t index, Tensor *tensor, Reason *reason) {
    (void)reason;
    *tensor = ((FakeModel *)model)->tensors[index];
    return true;
}

static void fake_close(Model *model) {
    FakeModel *fake = (FakeModel *)model;
    for (size_t i = 0; fake->tensors != NULL && i < model->outputs; i++) free(fake->tensors[i].data);
    free(fake->tensors);
    json_free(fake->script);
    free(fake);
}

/* A field of an operator in the script; NULL if it has none of this kind. */
static const Json *field(const Json *operator, const char *name, JsonKind kind) {
    const Json *member = json_member(operator, name);
    return member != NULL && member->kind == kind ? member : NULL;
}

/* An operator of the script has run: its duration, or -1 and the reason. */
static int64_t run_operator(Executed *executed, const Json *operator, Reason *reason) {
    const Json *name = field(operator, "name", JSON_STRING), *op = field(operator, "op", JSON_STRING);
    const Json *partition = field(operator, "partition", JSON_STRING), *index = field(operator, "index", JSON_NUMBER);
    const Json *inputs = field(operator, "inputs", JSON_LIST), *outputs = field(operator, "outputs", JSON_LIST);
    const Json *us = field(operator, "us", JSON_NUMBER);
    if (!name || !op || !partition || !index || !index->whole || !inputs || !outputs || !us || !us->whole || us->integer < 0) {
        fail(reason, "an operator of the script lacks a field");
        return -1;
    }
    Operator *ran = executed_ran(executed, name->string, op->string, partition->string, index->integer, us->integer);
    if (ran->inputs.length == 0) json_add(&ran->inputs, inputs);
    if (ran->outputs.length == 0) json_add(&ran->outputs, outputs);
    return us->integer;
}

static bool fake_profile(Model *model, Executed *executed, Reason *reason) {
    const Json *operators = field(((const FakeModel *)model)->script, "operators", JSON_LIST);
    for (size_t i = 0; i < WARM_UP_RUNS; i++) fake_run(model, reason);
    while (executed->inferences < executed->wanted) {
        int64_t inference_us = 0;
        fake_run(model, reason);
        for (const Json *operator = operators ? operators->first : NULL; operator != NULL; operator = operator->next) {
            int64_t duration_us = run_operator(executed, operator, reason);
            if (duration_us < 0) return false;
            inference_us += duration_us;
        }
        executed_inference(executed, inference_us);
    }
    if (executed->count == 0) fail(&executed->reason, "the script has no operators");
    return true;
}

/* ------------------------------------------------------------------------------------------------------------ opening */

static bool make_tensor(Tensor *tensor, const Json *input, const Opening *opening, uint64_t index, Reason *reason) {
    const Json *shape = json_member(input, "shape"), *type = json_member(input, "type");
    if (shape == NULL || shape->kind != JSON_LIST || shape->count > MAX_RANK || type == NULL || type->kind != JSON_STRING) {
        return fail(reason, "an input of the script has no shape and type");
    }
    for (const Json *length = shape->first; length != NULL; length = length->next) {
        bool fine = length->kind == JSON_NUMBER && length->whole && length->integer >= 0;
        tensor->shape[tensor->rank++] = fine ? length->integer : -1;
    }
    for (ElementType known = FLOAT32; known <= BOOLEAN; known++) {
        if (strcmp(type_name(known), type->string) == 0) tensor->type = known;
    }
    if (!tensor_measure(tensor, reason)) return false;
    tensor->data = allocate(tensor->count, type_bytes(tensor->type));
    return inputs_fill(tensor, opening, index, reason);
}

static bool make_tensors(FakeModel *fake, const Json *script, const Opening *opening, Reason *reason) {
    static const Json NONE = {.kind = JSON_LIST};
    const Json *inputs = json_member(script, "inputs");
    if (inputs == NULL) inputs = &NONE;
    if (inputs->kind != JSON_LIST) return fail(reason, "the script's inputs are no list");
    bool nan = is_true(script, "nan");
    fake->model.outputs = inputs->count + nan;
    fake->tensors = allocate(fake->model.outputs, sizeof *fake->tensors);
    uint64_t index = 0;
    for (const Json *input = inputs->first; input != NULL; input = input->next, index++) {
        if (!make_tensor(&fake->tensors[index], input, opening, index, reason)) return false;
    }
    if (nan) {
        float *value = allocate(1, sizeof *value);
        *value = NAN;
        fake->tensors[index] = (Tensor){.type = FLOAT32, .count = 1, .data = value};
    }
    return true;
}

static bool read_script(FakeModel *fake, const Json *script, const Opening *opening, Reason *reason) {
    const Json *error = json_member(script, "error"), *latency = json_member(script, "latency_ns");
    if (error != NULL) return fail(reason, "%s", error->kind == JSON_STRING ? error->string : "an error");
    if (latency == NULL || latency->kind != JSON_NUMBER || !latency->whole || latency->integer < 0) {
        return fail(reason, "the script has no latency_ns that is a whole number");
    }
    fake->latency_ns = latency->integer;
    fake->crash = is_true(script, "crash");
    fake->hang = is_true(script, "hang");
    return make_tensors(fake, script, opening, reason);
}

static Model *fake_open(const Runtime *runtime, const Opening *opening, Reason *reason) {
    size_t length, script_bytes;
    if (!inputs_model_bytes(opening->path, &script_bytes, reason)) return NULL;
    char *text = read_whole(opening->path, &length, reason);
    Json *script = text == NULL ? NULL : json_parse(text, script_bytes, reason);
    free(text);
    if (script == NULL) return NULL;
    FakeModel *fake = allocate(1, sizeof *fake);
    fake->model.runtime = runtime;
    fake->script = script;
    if (read_script(fake, script, opening, reason) && fake_run(&fake->model, reason)) return &fake->model;
    fake_close(&fake->model);
    return NULL;
}

const Runtime *fake_start(const Libraries *libraries, int threads, Reason *reason) {
    (void)libraries;
    (void)threads;
    (void)reason;
    Runtime *runtime = allocate(1, sizeof *runtime);
    *runtime = (Runtime){.name = "fake", .version = copy_text("0"), .library_path = copy_text("/proc/self/exe"),
                         .flags = "{\"simulated\":true}", .many_open = true,
                         .open = fake_open, .run = fake_run, .output = fake_output, .close = fake_close,
                         .profile = fake_profile};
    return runtime;
}
