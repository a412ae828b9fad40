// Python with the module qeval._native built in: what the tests of the package run by.
#include <Python.h>

PyMODINIT_FUNC PyInit__native();

int main(int argc, char** argv) {
  if (PyImport_AppendInittab("qeval._native", PyInit__native) != 0) return 1;
  return Py_BytesMain(argc, argv);
}
