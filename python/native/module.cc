// The module qeval._native, in Python's stable interface: one build serves every Python from 3.9 on. It knows
// one type, Model, whose requests and answers are JSON texts (model.h); what users see is written in Python.
#define PY_SSIZE_T_CLEAN
#include <exception>
#include <new>
#include <string>
#include <vector>

#include <Python.h>

#include "base/error.h"
#include "base/setting.h"
#include "cli/command.h"
#include "python/native/model.h"

namespace qeval::python {
namespace {

/// Of the module: kept for as long as the interpreter runs.
PyObject* error_type = nullptr;
PyObject* usage_error_type = nullptr;

/// A Python exception is set and is to reach the caller.
class PythonRaised : public std::exception {};

/// Owns a reference.
class Reference {
 public:
  explicit Reference(PyObject* object) : object_(object) {}
  ~Reference() { Py_XDECREF(object_); }
  Reference(const Reference&) = delete;
  Reference& operator=(const Reference&) = delete;
  PyObject* get() const { return object_; }

 private:
  PyObject* object_;
};

/// Other Python threads run while it lives.
class Released {
 public:
  Released() : state_(PyEval_SaveThread()) {}
  ~Released() { PyEval_RestoreThread(state_); }
  Released(const Released&) = delete;
  Released& operator=(const Released&) = delete;

  /// Runs `work` as a Python thread.
  template <typename Work>
  void within(const Work& work) {
    PyEval_RestoreThread(state_);
    struct Again {
      PyThreadState*& state;
      ~Again() { state = PyEval_SaveThread(); }
    } again{state_};
    work();
  }

 private:
  PyThreadState* state_;
};

/// Calls `observer`(kind, text, done, total) and lets Python look at signals, so that Ctrl-C raises
/// KeyboardInterrupt between two batches.
void tell(PyObject* observer, const char* kind, const std::string& text, int64_t done, int64_t total) {
  if (PyErr_CheckSignals() != 0) throw PythonRaised();
  const Reference answer(PyObject_CallFunction(observer, "ss#LL", kind, text.data(),
                                               static_cast<Py_ssize_t>(text.size()),
                                               static_cast<long long>(done), static_cast<long long>(total)));
  if (answer.get() == nullptr) throw PythonRaised();
}

/// Does `work` with other threads running and an observer that calls Python; returns false, with a Python
/// exception set, where it throws.
template <typename Work>
bool carry_out(PyObject* observer, const Work& work) {
  const auto raise = [](PyObject* type, const std::string& message) {
    const Reference text(
        PyUnicode_DecodeUTF8(message.data(), static_cast<Py_ssize_t>(message.size()), "backslashreplace"));
    if (text.get() != nullptr) PyErr_SetObject(type, text.get());
    return false;
  };
  try {
    Released released;
    work(Observer{[&](const std::string& what, int64_t done, int64_t total) {
                    released.within([&] { tell(observer, "progress", what, done, total); });
                  },
                  [&](const std::string& warning) {
                    released.within([&] { tell(observer, "warning", warning, 0, 0); });
                  }});
    return true;
  } catch (const PythonRaised&) {
    return false;
  } catch (const UsageError& error) {
    return raise(usage_error_type, error.what());
  } catch (const nlohmann::json::exception& error) {  // the package checks what it sends
    return raise(
        usage_error_type,
        fmt::format("internal error: a request is not of the form expected (JSON error {})", error.id));
  } catch (const std::exception& error) {
    return raise(error_type, cli::message_of(error));
  }
}

struct ModelObject {
  PyObject_HEAD Model* model;
};

PyObject* new_model(PyTypeObject* type, PyObject* arguments, PyObject* keywords) {
  const char* words = nullptr;
  Py_ssize_t size = 0;
  PyObject* observer = nullptr;
  if (keywords != nullptr && PyDict_Size(keywords) > 0) {
    PyErr_SetString(PyExc_TypeError, "Model(words, observer): no keywords");
    return nullptr;
  }
  if (PyArg_ParseTuple(arguments, "s#O", &words, &size, &observer) == 0) return nullptr;
  const auto allocate = reinterpret_cast<allocfunc>(PyType_GetSlot(type, Py_tp_alloc));
  PyObject* self = allocate(type, 0);
  if (self == nullptr) return nullptr;
  const std::string text(words, static_cast<size_t>(size));
  Model*& model = reinterpret_cast<ModelObject*>(self)->model;
  model = nullptr;
  const bool loaded = carry_out(observer, [&](const Observer& told) {
    model = new Model(words_of(nlohmann::ordered_json::parse(text)), told);
  });
  if (loaded) return self;
  Py_DECREF(self);
  return nullptr;
}

void delete_model(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  delete reinterpret_cast<ModelObject*>(self)->model;
  const auto release = reinterpret_cast<freefunc>(PyType_GetSlot(type, Py_tp_free));
  release(self);
  Py_DECREF(reinterpret_cast<PyObject*>(type));
}

PyObject* call_model(PyObject* self, PyObject* arguments) {
  const char *name = nullptr, *request = nullptr;
  Py_ssize_t size = 0;
  PyObject* observer = nullptr;
  if (PyArg_ParseTuple(arguments, "ss#O", &name, &request, &size, &observer) == 0) return nullptr;
  Model& model = *reinterpret_cast<ModelObject*>(self)->model;
  const std::string of(name), text(request, static_cast<size_t>(size));
  std::string answer;
  const bool done = carry_out(observer, [&](const Observer& told) {
    answer = model.call(of, nlohmann::ordered_json::parse(text), told)
                 .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  });
  if (!done) return nullptr;
  return PyUnicode_DecodeUTF8(answer.data(), static_cast<Py_ssize_t>(answer.size()), "strict");
}

PyMethodDef model_methods[] = {
    {"call", call_model, METH_VARARGS, "call(name, request, observer): the answer to a request, both JSON"},
    {nullptr, nullptr, 0, nullptr}};

PyType_Slot model_slots[] = {{Py_tp_new, reinterpret_cast<void*>(new_model)},
                             {Py_tp_dealloc, reinterpret_cast<void*>(delete_model)},
                             {Py_tp_methods, model_methods},
                             {0, nullptr}};

PyType_Spec model_spec = {.name = "qeval._native.Model",
                          .basicsize = sizeof(ModelObject),
                          .itemsize = 0,
                          .flags = Py_TPFLAGS_DEFAULT,
                          .slots = model_slots};

PyModuleDef module_definition = {.m_base = PyModuleDef_HEAD_INIT,
                                 .m_name = "qeval._native",
                                 .m_doc = "qeval's libraries; the package qeval is the interface.",
                                 .m_size = -1,
                                 .m_methods = nullptr,
                                 .m_slots = nullptr,
                                 .m_traverse = nullptr,
                                 .m_clear = nullptr,
                                 .m_free = nullptr};

/// Gives `object` to the module under `name`; keeps the reference that the caller has.
bool add(PyObject* module, const char* name, PyObject* object) {
  if (object == nullptr) return false;
  Py_INCREF(object);
  if (PyModule_AddObject(module, name, object) == 0) return true;
  Py_DECREF(object);
  return false;
}

bool fill(PyObject* module) {
  error_type = PyErr_NewExceptionWithDoc(
      "qeval.Error", "What qeval cannot do: one line that says what is wrong, where, and what is accepted.",
      PyExc_RuntimeError, nullptr);
  if (!add(module, "Error", error_type)) return false;
  usage_error_type = PyErr_NewExceptionWithDoc(
      "qeval.UsageError", "An argument is wrong; the message names it as the program's option.", error_type,
      nullptr);
  if (!add(module, "UsageError", usage_error_type)) return false;
  const Reference model(PyType_FromSpec(&model_spec));
  return add(module, "Model", model.get()) &&
         PyModule_AddStringConstant(module, "version", QEVAL_VERSION) == 0;
}

}  // namespace
}  // namespace qeval::python

PyMODINIT_FUNC PyInit__native() {
  qeval::spell_settings_as_options();
  PyObject* module = PyModule_Create(&qeval::python::module_definition);
  if (module == nullptr) return nullptr;
  if (qeval::python::fill(module)) return module;
  Py_DECREF(module);
  return nullptr;
}
