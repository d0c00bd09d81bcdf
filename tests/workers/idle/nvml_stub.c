/* A stand-in for libnvidia-ml.so.1, so that the library's own Python binding can be run where there is no GPU.
 * What it answers is in a text file, read at each call: `GPU UUID USED TOTAL UTILISATION MIG`, `PROCESS GPU PID USED`,
 * `FAIL FUNCTION CODE`. Layouts are NVML's (nvml.h of CUDA 12). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned long long total, free, used; } memory_v1;
typedef struct { unsigned int gpu, memory; } utilisation;
typedef struct { unsigned int pid; unsigned long long used; unsigned int gpu_instance, compute_instance; } process;
typedef struct { char uuid[96]; unsigned long long used, total; unsigned int utilisation; int mig; } gpu;

static gpu gpus[16];
static process processes[16][16];
static unsigned int count, listed[16];

static int look(const char *function) {
    char line[256], word[96];
    int code, found = 0;
    FILE *file = fopen(getenv("NVML_STUB"), "r");
    count = 0;
    memset(listed, 0, sizeof listed);
    while (file && fgets(line, sizeof line, file)) {
        unsigned int on, pid;
        unsigned long long used;
        gpu *one = &gpus[count];
        if (sscanf(line, "GPU %95s %llu %llu %u %d", one->uuid, &one->used, &one->total, &one->utilisation, &one->mig) == 5) count++;
        else if (sscanf(line, "PROCESS %u %u %llu", &on, &pid, &used) == 3)
            processes[on][listed[on]++] = (process){pid, used, 0xFFFFFFFF, 0xFFFFFFFF};
        else if (sscanf(line, "FAIL %95s %d", word, &code) == 2 && !strcmp(word, function)) found = code;
    }
    if (file) fclose(file);
    return found;
}

#define ANSWER(name) { int code = look(name); if (code) return code; }

int nvmlInitWithFlags(unsigned int flags) { ANSWER("nvmlInit"); return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "stub"; }
int nvmlDeviceGetCount_v2(unsigned int *n) { ANSWER("nvmlDeviceGetCount"); *n = count; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **handle) {
    ANSWER("nvmlDeviceGetHandleByIndex");
    if (index >= count) return 2;
    *handle = (void *)(size_t)(index + 1);
    return 0;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    look("");
    for (unsigned int i = 0; i < count; i++)
        if (!strcmp(uuid, gpus[i].uuid)) { *handle = (void *)(size_t)(i + 1); return 0; }
    return 6;
}
#define INDEX ((size_t)handle - 1)
int nvmlDeviceGetName(void *handle, char *text, unsigned int length) { snprintf(text, length, "NVIDIA Stub 80GB"); return 0; }
int nvmlDeviceGetUUID(void *handle, char *text, unsigned int length) { look(""); snprintf(text, length, "%s", gpus[INDEX].uuid); return 0; }
int nvmlDeviceGetMigMode(void *handle, unsigned int *now, unsigned int *pending) {
    look("");
    if (gpus[INDEX].mig < 0) return 3;
    *now = *pending = (unsigned int)gpus[INDEX].mig;
    return 0;
}
int nvmlDeviceGetMemoryInfo(void *handle, memory_v1 *memory) {
    look("");
    *memory = (memory_v1){gpus[INDEX].total, 0, gpus[INDEX].used + 600000000ULL};
    return 0;
}
int nvmlDeviceGetMemoryInfo_v2(void *handle, memory_v2 *memory) {
    ANSWER("nvmlDeviceGetMemoryInfo_v2");
    if (memory->version != (sizeof *memory | (2u << 24))) return 25;
    memory->total = gpus[INDEX].total;
    memory->reserved = 600000000ULL;
    memory->used = gpus[INDEX].used;
    return 0;
}
int nvmlDeviceGetUtilizationRates(void *handle, utilisation *rates) {
    ANSWER("nvmlDeviceGetUtilizationRates");
    *rates = (utilisation){gpus[INDEX].utilisation, 0};
    return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned int *n, process *found) {
    ANSWER("nvmlDeviceGetComputeRunningProcesses");
    unsigned int there = listed[INDEX], room = *n;
    *n = there;
    if (!there) return 0;
    if (room < there || !found) return 7;
    memcpy(found, processes[INDEX], there * sizeof *found);
    return 0;
}
