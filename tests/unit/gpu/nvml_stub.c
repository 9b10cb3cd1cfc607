/* A small NVML of one A100 in C, compiled by the tests as libnvidia-ml.so.1.

   It exists to prove that the Python side reads and writes structures as a C library lays them
   out: sizes and offsets below are those of nvml.h on x86-64 and are asserted. Three profiles
   (1g.5gb, 3g.20gb, 7g.40gb), one compute instance profile in each, no persistence. */

#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef unsigned int u32;
typedef unsigned long long u64;
typedef struct handle *handle_t;
typedef int result_t;

enum {
    SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    TIMEOUT = 10, IN_USE = 19, INSUFFICIENT_RESOURCES = 23, VERSION_MISMATCH = 25
};

typedef struct { u32 start, size; } placement_t;
typedef struct {
    u32 version, id, isP2pSupported, sliceCount, instanceCount, multiprocessorCount;
    u32 copyEngineCount, decoderCount, encoderCount, jpegCount, ofaCount;
    u64 memorySizeMB;
    char name[96];
} gpu_profile_t;
typedef struct { handle_t device; u32 id, profileId; placement_t placement; } gpu_info_t;
typedef struct {
    u32 version, id, sliceCount, instanceCount, multiprocessorCount;
    u32 copies, decoders, encoders, jpegs, ofas;
    char name[96];
} compute_profile_t;
typedef struct {
    handle_t device, gpuInstance;
    u32 id, profileId;
    placement_t placement;
} compute_info_t;
typedef struct { u64 total, free, used; } memory_t;
typedef struct { u32 pid; u64 usedGpuMemory; u32 gpuInstanceId, computeInstanceId; } process_t;
typedef struct { handle_t device; u64 type, data; u32 gpuInstanceId, computeInstanceId; } event_t;
typedef struct {
    char busIdLegacy[16];
    u32 domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} pci_t;

_Static_assert(sizeof(gpu_profile_t) == 152 && offsetof(gpu_profile_t, name) == 56, "profile");
_Static_assert(sizeof(gpu_info_t) == 24 && offsetof(gpu_info_t, placement) == 16, "GPU instance");
_Static_assert(sizeof(compute_profile_t) == 136, "compute profile");
_Static_assert(sizeof(compute_info_t) == 32, "compute instance");
_Static_assert(sizeof(memory_t) == 24 && sizeof(process_t) == 24, "memory, process");
_Static_assert(sizeof(event_t) == 32 && offsetof(event_t, gpuInstanceId) == 24, "event");
_Static_assert(sizeof(pci_t) == 68 && offsetof(pci_t, busId) == 36, "pci");

static const struct {
    u32 slot, id, slices, size, max, sm, count, starts[7], compute;
    u64 memory;
    const char *name;
} profiles[] = {
    {0, 19, 1, 1, 7, 14, 7, {0, 1, 2, 3, 4, 5, 6}, 0, 4864, "MIG 1g.5gb"},
    {2, 9, 3, 4, 2, 42, 2, {0, 4}, 2, 19968, "MIG 3g.20gb"},
    {4, 0, 7, 8, 1, 98, 1, {0}, 4, 40192, "MIG 7g.40gb"},
};
enum { PROFILES = 3, SLOTS = 8 };

/* One instance for each start; its handle is the address of its entry. */
static struct instance { int used, has_compute, profile; u32 id, start; } instances[SLOTS];
static u32 mig = 1;
static int events = 1;
static char card_memory, slice_memory[SLOTS], compute_memory[SLOTS], set_memory;
#define CARD ((handle_t)&card_memory)
#define SLICE(i) ((handle_t)&slice_memory[i])
#define COMPUTE(i) ((handle_t)&compute_memory[i])

static int by_id(u32 id) {
    for (int i = 0; i < PROFILES; i++) if (profiles[i].id == id) return i;
    return -1;
}
static int by_slot(u32 slot) {
    for (int i = 0; i < PROFILES; i++) if (profiles[i].slot == slot) return i;
    return -1;
}
static int index_in(handle_t handle, char *memory) {
    ptrdiff_t i = (char *)handle - memory;
    return i >= 0 && i < SLOTS && instances[i].used ? (int)i : -1;
}
static struct instance *instance_of(handle_t handle) {
    struct instance *found = (struct instance *)handle;
    return found >= instances && found < instances + SLOTS && found->used ? found : NULL;
}

result_t nvmlInitWithFlags(u32 flags) { return flags == 0 ? SUCCESS : INVALID_ARGUMENT; }
result_t nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(result_t code) { return code == IN_USE ? "In use" : "Some error"; }
result_t nvmlSystemGetDriverVersion(char *text, u32 length) {
    snprintf(text, length, "%s", "535.0-stub");
    return SUCCESS;
}
result_t nvmlSystemGetNVMLVersion(char *text, u32 length) {
    snprintf(text, length, "%s", "12.535-stub");
    return SUCCESS;
}
result_t nvmlDeviceGetCount_v2(u32 *count) { *count = 1; return SUCCESS; }
result_t nvmlDeviceGetHandleByIndex_v2(u32 index, handle_t *device) {
    if (index != 0) return INVALID_ARGUMENT;
    *device = CARD;
    return SUCCESS;
}
result_t nvmlDeviceGetHandleByUUID(const char *uuid, handle_t *device) {
    char own[96];
    if (!strcmp(uuid, "GPU-stub")) { *device = CARD; return SUCCESS; }
    for (int i = 0; i < SLOTS; i++) {
        snprintf(own, sizeof own, "MIG-stub-%u", instances[i].id);
        if (instances[i].used && !strcmp(uuid, own)) { *device = SLICE(i); return SUCCESS; }
    }
    return NOT_FOUND;
}
result_t nvmlDeviceGetIndex(handle_t device, u32 *index) {
    *index = 0;
    return device == CARD ? SUCCESS : INVALID_ARGUMENT;
}
result_t nvmlDeviceGetMinorNumber(handle_t device, u32 *minor) {
    *minor = 5;
    return device == CARD ? SUCCESS : NOT_SUPPORTED;
}
result_t nvmlDeviceGetName(handle_t device, char *name, u32 length) {
    snprintf(name, length, "%s", device == CARD ? "NVIDIA Stub" : "NVIDIA Stub MIG");
    return SUCCESS;
}
result_t nvmlDeviceGetUUID(handle_t device, char *uuid, u32 length) {
    int i = index_in(device, slice_memory);
    if (device == CARD) snprintf(uuid, length, "GPU-stub");
    else if (i < 0) return INVALID_ARGUMENT;
    else snprintf(uuid, length, "MIG-stub-%u", instances[i].id);
    return SUCCESS;
}
result_t nvmlDeviceGetPciInfo_v3(handle_t device, pci_t *pci) {
    memset(pci, 0, sizeof *pci);
    pci->pciDeviceId = 0x20B010DE;
    pci->bus = 7;
    strcpy(pci->busId, "00000000:07:00.0");
    return device == CARD ? SUCCESS : INVALID_ARGUMENT;
}
result_t nvmlDeviceGetMemoryInfo(handle_t device, memory_t *memory) {
    memory->total = 40960ull << 20;
    memory->used = 1ull << 20;
    memory->free = memory->total - memory->used;
    return device == CARD ? SUCCESS : NOT_SUPPORTED;
}
result_t nvmlDeviceGetMigMode(handle_t device, u32 *current, u32 *pending) {
    (void)device;
    *current = *pending = mig;
    return SUCCESS;
}
result_t nvmlDeviceSetMigMode(handle_t device, u32 mode, result_t *activation) {
    (void)device;
    *activation = SUCCESS;
    for (int i = 0; i < SLOTS; i++) if (instances[i].used) *activation = IN_USE;
    if (*activation == SUCCESS) mig = mode;
    return SUCCESS;
}
result_t nvmlDeviceGetGpuInstanceProfileInfoV(handle_t device, u32 slot, gpu_profile_t *info) {
    int p = by_slot(slot);
    (void)device;
    if (info->version != (sizeof *info | 2u << 24)) return VERSION_MISMATCH;
    if (slot >= 0x12) return INVALID_ARGUMENT;
    if (p < 0) return NOT_SUPPORTED;
    info->id = profiles[p].id;
    info->sliceCount = profiles[p].slices;
    info->instanceCount = profiles[p].max;
    info->multiprocessorCount = profiles[p].sm;
    info->memorySizeMB = profiles[p].memory;
    strcpy(info->name, profiles[p].name);
    return SUCCESS;
}
result_t nvmlDeviceGetGpuInstancePossiblePlacements_v2(
    handle_t device, u32 id, placement_t *places, u32 *count) {
    int p = by_id(id);
    (void)device;
    if (p < 0) return INVALID_ARGUMENT;
    for (u32 i = 0; places && i < profiles[p].count; i++)
        places[i] = (placement_t){profiles[p].starts[i], profiles[p].size};
    *count = profiles[p].count;
    return SUCCESS;
}
result_t nvmlDeviceGetGpuInstances(handle_t device, u32 id, handle_t *found, u32 *count) {
    (void)device;
    *count = 0;
    for (int i = 0; i < SLOTS; i++)
        if (instances[i].used && profiles[instances[i].profile].id == id)
            found[(*count)++] = (handle_t)&instances[i];
    return SUCCESS;
}
result_t nvmlDeviceGetGpuInstanceById(handle_t device, u32 id, handle_t *found) {
    (void)device;
    for (int i = 0; i < SLOTS; i++)
        if (instances[i].used && instances[i].id == id) {
            *found = (handle_t)&instances[i];
            return SUCCESS;
        }
    return NOT_FOUND;
}
result_t nvmlDeviceCreateGpuInstanceWithPlacement(
    handle_t device, u32 id, const placement_t *place, handle_t *made) {
    int p = by_id(id);
    (void)device;
    if (p < 0 || place->size != profiles[p].size) return INVALID_ARGUMENT;
    for (int i = 0; i < SLOTS; i++)
        if (instances[i].used && (u32)i < place->start + place->size &&
            place->start < i + profiles[instances[i].profile].size)
            return INSUFFICIENT_RESOURCES;
    instances[place->start] = (struct instance){1, 0, p, 20 + place->start, place->start};
    *made = (handle_t)&instances[place->start];
    return SUCCESS;
}
result_t nvmlGpuInstanceGetInfo(handle_t handle, gpu_info_t *info) {
    struct instance *found = instance_of(handle);
    if (!found) return INVALID_ARGUMENT;
    info->device = CARD;
    info->id = found->id;
    info->profileId = profiles[found->profile].id;
    info->placement = (placement_t){found->start, profiles[found->profile].size};
    return SUCCESS;
}
result_t nvmlGpuInstanceDestroy(handle_t handle) {
    struct instance *found = instance_of(handle);
    if (!found) return INVALID_ARGUMENT;
    if (found->has_compute) return IN_USE;
    found->used = 0;
    return SUCCESS;
}
result_t nvmlGpuInstanceGetComputeInstanceProfileInfoV(
    handle_t handle, u32 slot, u32 engine, compute_profile_t *info) {
    struct instance *found = instance_of(handle);
    if (info->version != (sizeof *info | 2u << 24)) return VERSION_MISMATCH;
    if (!found || engine != 0) return INVALID_ARGUMENT;
    if (profiles[found->profile].compute != slot) return NOT_SUPPORTED;
    info->id = slot;
    info->sliceCount = profiles[found->profile].slices;
    info->instanceCount = 1;
    info->multiprocessorCount = profiles[found->profile].sm;
    strcpy(info->name, profiles[found->profile].name);
    return SUCCESS;
}
result_t nvmlGpuInstanceCreateComputeInstance(handle_t handle, u32 id, handle_t *made) {
    struct instance *found = instance_of(handle);
    if (!found || profiles[found->profile].compute != id) return INVALID_ARGUMENT;
    if (found->has_compute) return INSUFFICIENT_RESOURCES;
    found->has_compute = 1;
    *made = COMPUTE(found - instances);
    return SUCCESS;
}
result_t nvmlGpuInstanceGetComputeInstances(handle_t handle, u32 id, handle_t *made, u32 *count) {
    struct instance *found = instance_of(handle);
    if (!found) return INVALID_ARGUMENT;
    *count = found->has_compute && profiles[found->profile].compute == id;
    if (*count) made[0] = COMPUTE(found - instances);
    return SUCCESS;
}
result_t nvmlComputeInstanceGetInfo_v2(handle_t handle, compute_info_t *info) {
    int i = index_in(handle, compute_memory);
    if (i < 0) return INVALID_ARGUMENT;
    info->device = SLICE(i);
    info->gpuInstance = (handle_t)&instances[i];
    info->id = 0;
    info->profileId = profiles[instances[i].profile].compute;
    info->placement = (placement_t){0, profiles[instances[i].profile].slices};
    return SUCCESS;
}
/* The slice at start 0 is in use by two processes. */
result_t nvmlComputeInstanceDestroy(handle_t handle) {
    int i = index_in(handle, compute_memory);
    if (i < 0) return INVALID_ARGUMENT;
    if (i == 0) return IN_USE;
    instances[i].has_compute = 0;
    return SUCCESS;
}
result_t nvmlDeviceGetComputeRunningProcesses_v3(handle_t device, u32 *count, process_t *found) {
    int i = index_in(device, slice_memory);
    u32 room = *count, have = i == 0 ? 2 : 0;
    *count = have;
    if (room < have) return INSUFFICIENT_SIZE;
    if (have) {
        found[0] = (process_t){4343, ~0ull, instances[i].id, 0};
        found[1] = (process_t){4242, 1500ull << 20, instances[i].id, 0};
    }
    return SUCCESS;
}
result_t nvmlDeviceGetGraphicsRunningProcesses_v3(handle_t device, u32 *count, process_t *found) {
    (void)device; (void)count; (void)found;
    return NOT_SUPPORTED;
}
result_t nvmlEventSetCreate(handle_t *set) { *set = (handle_t)&set_memory; return SUCCESS; }
result_t nvmlEventSetFree(handle_t set) { (void)set; return SUCCESS; }
result_t nvmlDeviceGetSupportedEventTypes(handle_t device, u64 *types) {
    (void)device;
    *types = 0x1F;
    return SUCCESS;
}
result_t nvmlDeviceRegisterEvents(handle_t device, u64 types, handle_t set) {
    return device == CARD && types == 0x8 && set == (handle_t)&set_memory ? SUCCESS
                                                                         : INVALID_ARGUMENT;
}
result_t nvmlEventSetWait_v2(handle_t set, event_t *event, u32 timeout_ms) {
    (void)set; (void)timeout_ms;
    if (events-- <= 0) return TIMEOUT;
    *event = (event_t){CARD, 0x8, 43, 24, 0};
    return SUCCESS;
}
