/* A driver library that says what the variable DRIVER wants, "VERSION MAJOR MINOR INIT": what cuDriverGetVersion and cuInit return, and the
   compute capability of one GPU. */
#include <stdio.h>
#include <stdlib.h>
enum { VERSION, MAJOR, MINOR, INIT };
static int said(int what) {
    int values[4] = {0};
    sscanf(getenv("DRIVER"), "%d %d %d %d", &values[VERSION], &values[MAJOR], &values[MINOR], &values[INIT]);
    return values[what];
}
int cuDriverGetVersion(int *version) { *version = said(VERSION); return 0; }
int cuInit(unsigned flags) { (void)flags; return said(INIT); }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { (void)device; *value = said(attribute == 75 ? MAJOR : MINOR); return 0; }
