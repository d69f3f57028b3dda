"""The experiments of "Generative Modeling by Estimating Gradients of the Data Distribution" (Song and Ermon 2019).

    python -m examples.paper --all                    six pictures, six files of numbers, some minutes
    python -m examples.paper low-density film         some of them
    python -m examples.paper --all --short            tiny ones, as the tests run them

``low-density``, ``slow-mixing``, ``manifold``, ``ladder``, ``film`` and ``objectives`` are a file each. An experiment
writes a picture NAME.png and its numbers NAME.json, and states claims as numbers with bounds; the same number of a
control must miss them. A claim that does not hold, or a control that passes, makes the exit status 1.

On one thread, with addressed noise and a seeded network: the same command on the same machine writes the same bytes.
"""
