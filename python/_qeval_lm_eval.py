"""Makes `lm_eval --model qeval` known to lm-evaluation-harness up to 0.4.13, which does not look for the entry points
of other packages (later ones do, and then this finds the name taken). Imported by qeval_lm_eval.pth whenever Python
starts, so it imports nothing: it waits for `lm_eval.models`, the module that names the harness's own models."""

import sys

_MODULE = "lm_eval.models"


class _Loader:
    """The module's own loader, and a name more once it has run."""

    def __init__(self, loader):
        self._loader = loader

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        self._loader.exec_module(module)
        try:
            from lm_eval.api.registry import model_registry

            if "qeval" not in model_registry:
                model_registry.register("qeval", target="qeval.lm_eval:QevalLM")
        except (ImportError, AttributeError, TypeError, ValueError):
            pass  # a harness that registers models in another way; `import qeval.lm_eval` registers it by hand


class _Finder:
    """Stays where it is: a module may be looked for without being run, and taking it out would make another thread that
    is going through the finders miss one."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != _MODULE:
            return None
        finders = list(sys.meta_path)
        for finder in finders[finders.index(cls) + 1 if cls in finders else 0:]:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find is not None else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


sys.meta_path.insert(0, _Finder)
