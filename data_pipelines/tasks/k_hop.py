"""k-hop composition over a knowledge graph (Wang et al. 2024, arXiv 2405.15071)."""

import random

from data_pipelines.tasks.problem import Problem, Task
from mythos.config.base import ConfigError


class KHop(Task):
    """Follow relations from entity to entity in a random graph that is learnt only from training data.

    Every fact of the graph (one hop) is a training document; questions of two or more hops are split into training
    and test.

    Prompt: the first entity, k relations, ``>``. Answer: the entity that they lead to.
    """

    name = "k-hop"

    def __init__(self, num_entities: int, num_relations: int, out_degree: int, graph_seed: int) -> None:
        if num_entities < 2 or not 1 <= out_degree <= num_relations:
            raise ConfigError(
                f"--entities is {num_entities}, --relations {num_relations} and --out-degree {out_degree}; give at "
                "least 2 entities, and each of them at least 1 and at most all relations."
            )
        self._num_entities = num_entities
        self._num_relations = num_relations
        generator = random.Random(f"knowledge graph {graph_seed}")
        self.graph = [
            {
                relation: generator.randrange(num_entities)
                for relation in sorted(generator.sample(range(num_relations), out_degree))
            }
            for _ in range(num_entities)
        ]
        """For each entity, the entity that each of its relations leads to."""

    @property
    def words(self) -> tuple[str, ...]:
        entities = (f"e{entity}" for entity in range(self._num_entities))
        return (*entities, *(f"r{relation}" for relation in range(self._num_relations)), ">")

    def draw(self, difficulty: int, generator: random.Random) -> Problem:
        if difficulty < 2:
            raise ConfigError(
                f"--hops has {difficulty}, but single hops are the facts, all in training; set 2 or more."
            )
        first = entity = generator.randrange(self._num_entities)
        relations = []
        for _ in range(difficulty):
            relation, entity = generator.choice(list(self.graph[entity].items()))
            relations.append(f"r{relation}")
        return Problem(difficulty, (f"e{first}", *relations, ">"), (f"e{entity}",))

    def facts(self) -> tuple[Problem, ...]:
        return tuple(
            Problem(1, (f"e{entity}", f"r{relation}", ">"), (f"e{target}",))
            for entity, edges in enumerate(self.graph)
            for relation, target in edges.items()
        )
