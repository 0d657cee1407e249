PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE facts (
    name TEXT PRIMARY KEY,      -- manifest_id, job, job_file, service, created_at, task_times
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO facts VALUES('created_at','1796036948.480');
INSERT INTO facts VALUES('job','half');
INSERT INTO facts VALUES('job_file','FOLDER/job.yaml');
INSERT INTO facts VALUES('manifest_id','57ac1d90a639');
INSERT INTO facts VALUES('service','SERVICE');
INSERT INTO facts VALUES('task_times','{"2K": [4.0, 4.0]}');
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    started_at REAL NOT NULL,
    ended_at REAL,
    pid INTEGER NOT NULL,
    host TEXT NOT NULL,
    version TEXT NOT NULL,      -- of seedream-batch
    service TEXT NOT NULL,      -- the origin the run talked to
    outcome TEXT                -- 'finished', or why it stopped
) STRICT;
INSERT INTO runs VALUES(1,1796036948.4799213408,1796037022.4996340274,9297,'vm','0.1.0','SERVICE','finished');
INSERT INTO runs VALUES(2,1796037025.7365860938,NULL,14449,'vm','0.1.0','SERVICE',NULL);
CREATE TABLE tasks (
    id INTEGER PRIMARY KEY,
    fingerprint TEXT NOT NULL UNIQUE,
    ordinal INTEGER,            -- place in the job; NULL: the job no longer asks for it
    sample INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN
        ('planned', 'submitting', 'accepted', 'succeeded', 'failed', 'lost', 'uncertain')),
    body TEXT NOT NULL,         -- the request; a local reference image stands in it by its hash
    images INTEGER NOT NULL,    -- asked for
    paths TEXT NOT NULL,        -- JSON list, without extensions
    cell TEXT NOT NULL,         -- JSON object of axis values
    model TEXT NOT NULL,
    size TEXT NOT NULL,
    resolution TEXT NOT NULL,
    price INTEGER NOT NULL,     -- estimate for an image
    attempt INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0,
    task_ids TEXT,              -- JSON list: one submission may be answered with several
    submitted_at REAL,
    deadline REAL,
    ended_at REAL,
    cost INTEGER,               -- of the last attempt, as the service said
    code TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    held INTEGER NOT NULL DEFAULT 0,
    updated_at REAL NOT NULL,
    CHECK (state != 'accepted' OR task_ids IS NOT NULL)
) STRICT;
INSERT INTO tasks VALUES(1,'689dd08a262a553fe352076cc3db5b0c9c55c724a8588e8580ecca5fcc951795',1,1,'succeeded','{"model":"doubao-seedance-4-5","prompt":"panda in the snow"}',1,'["panda"]','{"subject":"panda"}','doubao-seedance-4-5','1:1','2K',35000,1,0,0.0,'["task_01M8P29WKXSKHMMF1CDBW13DC4"]',1796036948.6094658374,1796038748.6094658375,1796036954.2363715171,35000,'','',0,1796036954.2363715171);
INSERT INTO tasks VALUES(2,'ec31ccfbe55a68238ca163d5cf128ae0a4dc15e5efadb15da748b40927a8ae03',2,1,'failed','{"model":"doubao-seedance-4-5","prompt":"fox in the snow"}',1,'["fox"]','{"subject":"fox"}','doubao-seedance-4-5','1:1','2K',35000,1,1,0.0,'["task_01M8P2A2J49R688405BYJ3K3Q9"]',1796036954.7116026878,1796038754.7116026877,1796036958.7710449694,NULL,'OutputImageSensitiveContentDetected','image generation failed',0,1796036958.7710449694);
INSERT INTO tasks VALUES(3,'3e56e19e11f6d54c26f985f9f4a244ee1ee0040b1992f3d715ff23fd592471d6',3,1,'lost','{"model":"doubao-seedance-4-5","prompt":"owl in the snow"}',1,'["owl"]','{"subject":"owl"}','doubao-seedance-4-5','1:1','2K',35000,1,0,0.0,'["task_01M8P2A6JNVSKTS5E6X27DH8HC"]',1796036958.8191795348,1796038758.8191795349,1796037022.4520525932,NULL,'','the service does not know this task id (404)',0,1796037022.4520525932);
INSERT INTO tasks VALUES(4,'b61c314c0940d7ff0a1b6ef3b337508ce003901ddc7699c72cbaed444632c3d3',4,1,'uncertain','{"model":"doubao-seedance-4-5","prompt":"lynx in the snow"}',1,'["lynx"]','{"subject":"lynx"}','doubao-seedance-4-5','1:1','2K',35000,1,0,0.0,NULL,NULL,NULL,NULL,NULL,'','the connection was reset',0,1796037022.4847502708);
INSERT INTO tasks VALUES(5,'ff7cbb62420552b4471d2de0e4b864b43d80437276c82dd5a1bdb0de4903dce4',5,1,'accepted','{"model":"doubao-seedance-4-5","prompt":"crane in the snow"}',1,'["crane"]','{"subject":"crane"}','doubao-seedance-4-5','1:1','2K',35000,1,0,0.0,'["task_01M8P2C8386S4F65V81NK04DR9"]',1796037025.9045269489,1796038825.9045269488,NULL,NULL,'','',0,1796037025.9045269489);
INSERT INTO tasks VALUES(6,'6d7d3448938198ce9cbb4521ef1c33641d61f8132fd439fec9c487689bce5f31',6,1,'planned','{"model":"doubao-seedance-4-5","prompt":"otter in the snow"}',1,'["otter"]','{"subject":"otter"}','doubao-seedance-4-5','1:1','2K',35000,0,0,0.0,NULL,NULL,NULL,NULL,NULL,'','',0,1796036948.4799213408);
CREATE TABLE attempts (
    key TEXT PRIMARY KEY,       -- the Idempotency-Key
    task INTEGER NOT NULL REFERENCES tasks (id),
    number INTEGER NOT NULL,    -- from 1
    body TEXT,                  -- the exact request sent; NULL: the task's own body
    opened_at REAL NOT NULL,
    task_ids TEXT,
    outcome TEXT NOT NULL DEFAULT 'open',
    reserved_images INTEGER NOT NULL,
    reserved INTEGER NOT NULL,  -- money held until the real cost is known
    images INTEGER NOT NULL DEFAULT 0,
    cost INTEGER NOT NULL DEFAULT 0,
    UNIQUE (task, number)
) STRICT, WITHOUT ROWID;
INSERT INTO attempts VALUES('sb-57ac1d90a639-3e56e19e11f6d54c26f985f9f4a244ee1ee0040b-1',3,1,NULL,1796036958.7893583774,'["task_01M8P2A6JNVSKTS5E6X27DH8HC"]','lost',1,35000,0,0);
INSERT INTO attempts VALUES('sb-57ac1d90a639-689dd08a262a553fe352076cc3db5b0c9c55c724-1',1,1,NULL,1796036948.5828495025,'["task_01M8P29WKXSKHMMF1CDBW13DC4"]','succeeded',0,0,1,35000);
INSERT INTO attempts VALUES('sb-57ac1d90a639-b61c314c0940d7ff0a1b6ef3b337508ce003901d-1',4,1,NULL,1796037022.4587495326,NULL,'uncertain',1,35000,0,0);
INSERT INTO attempts VALUES('sb-57ac1d90a639-ec31ccfbe55a68238ca163d5cf128ae0a4dc15e5-1',2,1,NULL,1796036954.6756093502,'["task_01M8P2A2J49R688405BYJ3K3Q9"]','failed',0,0,0,0);
INSERT INTO attempts VALUES('sb-57ac1d90a639-ff7cbb62420552b4471d2de0e4b864b43d804372-1',5,1,NULL,1796037025.8720116615,'["task_01M8P2C8386S4F65V81NK04DR9"]','accepted',1,35000,0,0);
CREATE TABLE images (
    task INTEGER NOT NULL REFERENCES tasks (id),
    "index" INTEGER NOT NULL,   -- from 1
    state TEXT NOT NULL CHECK (state IN ('announced', 'stored', 'rejected', 'expired', 'missing')),
    url TEXT NOT NULL,
    expires_at REAL,
    path TEXT,                  -- relative to the output folder
    target TEXT,                -- where the file has to move
    via TEXT,                   -- where it is being moved to right now
    bytes INTEGER,
    sha256 TEXT,
    width INTEGER,
    height INTEGER,
    format TEXT,
    tries INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    updated_at REAL NOT NULL,
    PRIMARY KEY (task, "index"),
    CHECK (state != 'stored' OR (path IS NOT NULL AND sha256 IS NOT NULL))
) STRICT, WITHOUT ROWID;
INSERT INTO images VALUES(1,1,'stored','SERVICE/results/task_01M8P29WKXSKHMMF1CDBW13DC4/0.jpg?expires=1796123352605&token=145a62ae4cc29aa5',1796123352.0,'panda.jpg',NULL,NULL,203262,'bc79b2e02d6c5f2126e49a5bd5a398c196281aa2a1e9dd1a6d069a47aba4da49',2048,2048,'JPEG',0,'',1796036954.666601181);
CREATE TABLE uploads (
    sha256 TEXT NOT NULL,
    service TEXT NOT NULL,
    url TEXT NOT NULL,
    expires_at REAL NOT NULL,
    PRIMARY KEY (sha256, service)
) STRICT, WITHOUT ROWID;
CREATE TABLE prices (           -- what an image really cost, the last time the service said
    model TEXT NOT NULL,
    resolution TEXT NOT NULL,
    price INTEGER NOT NULL,
    PRIMARY KEY (model, resolution)
) STRICT, WITHOUT ROWID;
INSERT INTO prices VALUES('doubao-seedance-4-5','2K',35000);
CREATE TABLE totals (           -- the sums over attempts, kept in the same transactions
    only INTEGER PRIMARY KEY CHECK (only = 1),
    reserved_images INTEGER NOT NULL,
    reserved INTEGER NOT NULL,
    images INTEGER NOT NULL,
    cost INTEGER NOT NULL
) STRICT;
INSERT INTO totals VALUES(1,3,105000,1,35000);
CREATE TABLE events (           -- every transition, append-only
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    run INTEGER,
    task INTEGER NOT NULL,
    image INTEGER,
    old TEXT NOT NULL,
    new TEXT NOT NULL,
    why TEXT NOT NULL
) STRICT;
INSERT INTO events VALUES(1,1796036948.5828495025,1,1,NULL,'planned','submitting','attempt 1');
INSERT INTO events VALUES(2,1796036948.6094658374,1,1,NULL,'submitting','accepted','accepted: task_01M8P29WKXSKHMMF1CDBW13DC4');
INSERT INTO events VALUES(3,1796036954.2363715171,1,1,NULL,'accepted','succeeded','completed with 1 image(s)');
INSERT INTO events VALUES(4,1796036954.666601181,1,1,1,'announced','stored','2048 x 2048 JPEG, 203262 bytes');
INSERT INTO events VALUES(5,1796036954.6756093502,1,2,NULL,'planned','submitting','attempt 1');
INSERT INTO events VALUES(6,1796036954.7116026878,1,2,NULL,'submitting','accepted','accepted: task_01M8P2A2J49R688405BYJ3K3Q9');
INSERT INTO events VALUES(7,1796036958.7710449694,1,2,NULL,'accepted','failed','image generation failed');
INSERT INTO events VALUES(8,1796036958.7893583774,1,3,NULL,'planned','submitting','attempt 1');
INSERT INTO events VALUES(9,1796036958.8191795348,1,3,NULL,'submitting','accepted','accepted: task_01M8P2A6JNVSKTS5E6X27DH8HC');
INSERT INTO events VALUES(10,1796037022.4520525932,1,3,NULL,'accepted','lost','the service does not know this task id (404)');
INSERT INTO events VALUES(11,1796037022.4587495326,1,4,NULL,'planned','submitting','attempt 1');
INSERT INTO events VALUES(12,1796037022.4847502708,1,4,NULL,'submitting','uncertain','the connection was reset');
INSERT INTO events VALUES(13,1796037025.8720116615,2,5,NULL,'planned','submitting','attempt 1');
INSERT INTO events VALUES(14,1796037025.9045269489,2,5,NULL,'submitting','accepted','accepted: task_01M8P2C8386S4F65V81NK04DR9');
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('events',14);
CREATE INDEX tasks_planned ON tasks (ordinal) WHERE state = 'planned' AND ordinal IS NOT NULL;
CREATE INDEX tasks_open ON tasks (state) WHERE state IN ('submitting', 'accepted', 'uncertain');
CREATE INDEX tasks_wrong ON tasks (state) WHERE state IN ('failed', 'lost');
CREATE INDEX attempts_holding ON attempts (task) WHERE reserved_images > 0;
CREATE UNIQUE INDEX images_path ON images (path) WHERE state = 'stored';
CREATE INDEX images_open ON images (expires_at) WHERE state = 'announced';
CREATE INDEX images_wrong ON images (state) WHERE state IN ('rejected', 'expired', 'missing');
CREATE INDEX images_moving ON images (task) WHERE target IS NOT NULL;
CREATE INDEX images_under_way ON images (task) WHERE via IS NOT NULL;
CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'the log of transitions is append-only'); END;
CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'the log of transitions is append-only'); END;
COMMIT;
