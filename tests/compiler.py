"""Compiler options with which tests are ready sooner, as far as this release of JAX knows them."""

from rfho._programs.compiled import known_options

# Half the time to compile. The option is gone from JAX 0.12 on.
OLD_EMITTERS = known_options({"xla_cpu_use_fusion_emitters": False})

UNOPTIMISED = {"xla_backend_optimization_level": 0}
