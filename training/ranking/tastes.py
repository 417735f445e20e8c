"""Films that do not exist and people who do not exist, with tastes that hang together: generated, by seed.

There is no data of real people in it. What makes the tastes worth learning is made up as well, and known: a film has
one or two genres and hidden traits (pace, mood, …), a person likes some genres and some traits, everybody is drawn to
what is popular, and chance has its share. A recommender sees none of this, only who liked what.
"""

import numpy as np

ITEMS = 300
KNOWN, VALIDATION, STRANGERS = 2000, 1000, 1000
TRAITS = 6
LEAST_LIKES, MOST_LIKES = 5, 60

GENRES = {
    "crime": ["Alibi", "Ransom", "Verdict", "Witness", "Heist", "Suspect"],
    "comedy": ["Wedding", "Uncle", "Umbrella", "Misunderstanding", "Landlord", "Parrot"],
    "drama": ["Inheritance", "Letter", "Silence", "Daughter", "Winter", "Promise"],
    "romance": ["Kiss", "Station", "Dancer", "Postcard", "Serenade", "Lighthouse"],
    "science fiction": ["Orbit", "Android", "Colony", "Signal", "Paradox", "Nebula"],
    "fantasy": ["Dragon", "Oracle", "Kingdom", "Spell", "Amulet", "Forest"],
    "horror": ["Cellar", "Whisper", "Doll", "Fog", "Mirror", "Scream"],
    "western": ["Saddle", "Canyon", "Sheriff", "Railroad", "Duel", "Prairie"],
    "documentary": ["Glacier", "Orchestra", "River", "Factory", "Migration", "Archive"],
    "adventure": ["Expedition", "Treasure", "Volcano", "Compass", "Island", "Caravan"],
    "war": ["Trench", "Armistice", "Convoy", "Deserter", "Bridge", "Siege"],
    "animation": ["Hedgehog", "Balloon", "Robot", "Snowman", "Acorn", "Comet"],
}
ADJECTIVES = ["Last", "Silent", "Crooked", "Golden", "Forgotten", "Seventh", "Burning", "Quiet", "Broken", "Distant"]


def films(random: np.random.Generator) -> tuple:
    """`[{id, title, genres}]`, features `[items, genres + traits]` and attraction `[items]`."""
    names = list(GENRES)
    titles = [(adjective, noun, genre) for genre in names for noun in GENRES[genre] for adjective in ADJECTIVES]
    chosen = [titles[i] for i in random.permutation(len(titles))[:ITEMS]]
    features = np.zeros((ITEMS, len(names) + TRAITS))
    catalogue = []
    for i, (adjective, noun, genre) in enumerate(chosen):
        features[i, names.index(genre)] = 1
        genres = [genre]
        second = names[random.integers(len(names))]
        if random.random() < 0.5 and second != genre:
            features[i, names.index(second)] = 0.6
            genres.append(second)
        catalogue.append({"id": f"f{i + 1:03}", "title": f"The {adjective} {noun} ({', '.join(genres)})"})
    features[:, len(names) :] = random.normal(0, 0.4, (ITEMS, TRAITS))
    return catalogue, features, random.normal(0, 0.8, ITEMS)


def people(count: int, features: np.ndarray, attraction: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """`[people, items]`: 1 where somebody liked a film."""
    genres = features.shape[1] - TRAITS
    tastes = np.hstack([6 * random.dirichlet(np.full(genres, 0.3), count), random.normal(0, 1.5, (count, TRAITS))])
    wish = tastes @ features.T + attraction + random.gumbel(0, 1, (count, ITEMS))
    likes = np.clip(LEAST_LIKES + random.geometric(1 / 18, count), LEAST_LIKES, MOST_LIKES)
    rank = np.argsort(np.argsort(-wish, axis=1), axis=1)
    return (rank < likes[:, None]).astype(np.float32)
