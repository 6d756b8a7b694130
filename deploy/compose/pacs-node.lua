-- a study that got nothing new for StableAge seconds goes to the node, which knows what it has seen and what it made itself
function OnStableStudy(studyId, tags, metadata)
   local job = { Resources = { studyId }, Synchronous = false }
   RestApiPost('/modalities/pacs-node/store', DumpJson(job))
end
