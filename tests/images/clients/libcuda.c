/* A driver library that says what the test wants: VERSION as cuDriverGetVersion returns it, MAJOR.MINOR of one GPU. */
#ifndef INIT
#define INIT 0
#endif
int cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
int cuInit(unsigned flags) { (void)flags; return INIT; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { (void)device; *value = attribute == 75 ? MAJOR : MINOR; return 0; }
