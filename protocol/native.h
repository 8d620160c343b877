/* What the files of the accelerator share. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

/* To be raised with each change of what kpy calls: kpy/native.py passes over an accelerator of another number. */
#define KPY_INTERFACE 5

extern PyTypeObject Records_Type;
extern PyTypeObject OffsetTable_Type;

/* Which of two ways to compute CRCs this processor has. */
void choose_crc(void);

/* Where there are eventfds; elsewhere there is no Sender. Less than 0 with an exception. */
int add_sender(PyObject *module);

/* The same for where there are epolls. */
int add_send_while_alone(PyObject *module);

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

/* A zigzag varint of at most 32 or 64 bits; 0 if there is none. */
static inline int read_varint(const uint8_t **at, const uint8_t *end, int bits, int64_t *number)
{
    uint64_t value = 0;
    const uint8_t *p = *at;
    for (int shift = 0; shift < bits; shift += 7) {
        if (p >= end)
            return 0;
        uint64_t byte = *p++;
        if (bits - shift < 7 && (byte & 0x7f) >> (bits - shift))
            return 0;
        value |= (byte & 0x7f) << shift;
        if (byte < 0x80) {
            *number = (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
            *at = p;
            return 1;
        }
    }
    return 0;
}
