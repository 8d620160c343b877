/* What the two files of the accelerator share. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

extern PyTypeObject Records_Type;

/* Whether what stopped C is to be told by the Python function. Running out of memory is not. */
static inline int is_left_to_python(void)
{
    if (PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_MemoryError))
            return 0;
        PyErr_Clear();
    }
    return 1;
}
