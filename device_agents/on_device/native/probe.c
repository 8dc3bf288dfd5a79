#include "probe.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/wait.h>
#include <unistd.h>

#include "json.h"
#include "runtime.h"

enum { PATIENCE_S = 60 };

/* Whether a library that cannot be opened would be this runtime, by the name of its file. */
static bool sounds_like(const char *path, const char *runtime) {
    const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path;
    bool onnx = strcasestr(file, "onnx") != NULL, lite = strcasestr(file, "litert") != NULL;
    if (strcmp(runtime, "onnxruntime") == 0) return onnx;
    return lite ? strcmp(runtime, "litert") == 0 : strcasestr(file, "tensorflowlite") != NULL || strcasestr(file, "tflite") != NULL;
}

static void tell_reason(Text *text, const char *reason) {
    text_add(text, "{\"broken\":");
    json_add_string(text, reason);
    text_add(text, "}");
}

/* Start it and run the probe's model of its format. */
static void tell_started(Text *text, const char *name, const Libraries *libraries, const char *folder) {
    Reason reason = {""};
    const Runtime *runtime = runtime_start(name, libraries, 1, &reason);
    char *path = format_text("%s/probe.%s", folder, strcmp(name, "onnxruntime") == 0 ? "onnx" : "tflite");
    Model *model = runtime == NULL ? NULL : runtime->open(runtime, &(Opening){.path = path}, &reason);
    free(path);
    if (model == NULL) {
        tell_reason(text, reason.text);
        return;
    }
    text_add(text, "{\"version\":");
    json_add_string(text, runtime->version);
    text_add(text, "}");
}

/* Open the libraries in order until one has the runtime. */
static void tell_one(Text *text, const char *name, const char *folder, char **paths, size_t count) {
    Libraries libraries = {0};
    Reason reason, first = {""};
    for (size_t i = 0; i < count; i++) {
        if (!libraries_open(&libraries, paths[i], &reason)) {
            if (sounds_like(paths[i], name) && !first.text[0]) first = reason;
        } else if (runtime_is_in(name, &libraries)) {
            tell_started(text, name, &libraries, folder);
            return;
        }
    }
    if (first.text[0]) tell_reason(text, first.text);
    else text_add(text, "{\"missing\":true}");
}

/* The child that tries a runtime: what it finds goes into the pipe, the runtime's own chatter to standard error. */
NO_RETURN static void try_one(int output, const char *name, const char *folder, char **paths, size_t count) {
    Text text = {0};
    dup2(2, 1);
    alarm(PATIENCE_S);
    tell_one(&text, name, folder, paths, count);
    size_t written = 0;
    while (written < text.length) {
        ssize_t now = write(output, text.data + written, text.length - written);
        if (now <= 0) break;
        written += (size_t)now;
    }
    _exit(0);
}

static void tell_child(Text *text, const char *name, int input, pid_t child) {
    char block[1024], reason[80];
    size_t before = text->length;
    int status = 0;
    for (ssize_t count; (count = read(input, block, sizeof block)) > 0;) text_add_bytes(text, block, (size_t)count);
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && text->length > before) return;
    text->length = before;
    if (WIFSIGNALED(status)) snprintf(reason, sizeof reason, "trying %s ended by signal %d", name, WTERMSIG(status));
    else snprintf(reason, sizeof reason, "trying %s ended early; see standard error", name);
    tell_reason(text, reason);
}

void tell_runtimes(Text *text, const char *folder, char **paths, size_t count) {
    text_add(text, "{");
    for (size_t i = 0; RUNTIME_NAMES[i] != NULL; i++) {
        int ends[2];
        if (pipe(ends) != 0) die("no pipe to try the runtimes by can be made");
        text_add(text, "%s\"%s\":", i ? "," : "", RUNTIME_NAMES[i]);
        pid_t child = fork();
        if (child < 0) die("no process to try the runtimes in can be started");
        if (child == 0) try_one(ends[1], RUNTIME_NAMES[i], folder, paths, count);
        close(ends[1]);
        tell_child(text, RUNTIME_NAMES[i], ends[0], child);
        close(ends[0]);
    }
    text_add(text, "}");
}
