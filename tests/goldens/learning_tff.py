"""Writes `learning_tff_0_40.json`: what real TFF 0.40 does on `learning_cases`.

Run it with the interpreter of a TFF 0.40 installation, in this folder:
`python learning_tff.py`.
"""

import json

import learning_cases
import tensorflow as tf
import tensorflow_federated as tff

goldens = {}
for name, (build, spoilt) in learning_cases.processes(tff.learning, tf.keras).items():
    print(name)
    goldens[name] = learning_cases.run(build, spoilt)
for name, (build, spoilt) in learning_cases.optimizer_processes(
    tff.learning, tf.keras
).items():
    print(name)
    goldens[name] = learning_cases.run(build, spoilt)
for name, build in learning_cases.saturated_processes(tff.learning, tf.keras).items():
    print("saturated", name)
    goldens[f"saturated_{name}"] = learning_cases.run_on(
        build, 3 * [learning_cases.saturated_data()]
    )
evaluations = learning_cases.evaluations(tff.learning, tf.keras, tff.to_type)
goldens["evaluations"] = evaluations
with open("learning_tff_0_40.json", "w") as file:
    json.dump(goldens, file, indent=1)
    file.write("\n")
