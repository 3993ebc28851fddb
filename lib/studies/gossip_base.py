"""The run from which the gossip notebooks start: plain gossip on a random regular graph."""

from lib.gossip.algorithms import Average
from lib.gossip.simulation import Settings
from lib.studies.gossip import Run, regular
from lib.tasks import label_of


def base_run(
    *, data, image_size, model, num_nodes, degree, ticks, seed, lr, batch, augment, record_every, eval_images
):  # fmt: skip
    """Config of plain gossip from the parameters of a notebook; other runs differ from it by ``dataclasses.replace``.

    Parameters
    ----------
    data, model : str
        A data set, and a family of :mod:`lib.models` (its member of the paper's size).
    image_size : int
        Pixels; 0 for the data set's own size.
    nodes, degree : int
        Of the random regular graph.
    ticks, seed : int
    lr, batch, augment, record_every, eval_images
        As in :class:`lib.gossip.Settings`.

    Returns
    -------
    Run
        Its ``averaging`` is ``gossip.Average()``.
    str
        Data and model, for the foot of figures and tables.

    Examples
    --------
    >>> base, source = base_run(
    ...     data="digits", image_size=16, model="lenet5", num_nodes=16, degree=4, ticks=100, seed=1,
    ...     lr=0.01, batch=32, augment=False, record_every=10, eval_images=100,
    ... )
    >>> source
    'digits (scikit-learn), lenet5'
    """
    settings = Settings(
        lr=lr, batch=batch, augment=augment, record_every=record_every, eval_images=eval_images, model_size="paper"
    )
    base = Run(
        data=data, image_size=image_size, model=model, graph=regular(num_nodes, degree), averaging=Average(),
        ticks=ticks, seed=seed, settings=settings,
    )  # fmt: skip
    return base, f"{label_of(data)}, {model}"
